"""The same deployment on a Kafka cluster: topics, the worker's broker, and the bridge to Redis."""

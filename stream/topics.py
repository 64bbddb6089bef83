"""The topics of a deployment and how long each is kept."""

from __future__ import annotations

from stream.transport.layout import TopicConfig

DEFAULT_PREFIX = "bedside:"
"""Start of every key of a deployment."""

WORKER_GROUP = "bedside-worker"
"""The workers' consumer group, and the name of their Faust app."""

BEDS_TABLE = "beds"
"""Faust table of what outlives a worker of each bed."""

MEMORIES_TABLE = "memories"
"""Faust table of what has been learnt of each bed's signal; see `stream.vitals.memory`."""

SAMPLES = "samples"
FINDINGS = "findings"
VITALS = "vitals"
ALARMS = "alarms"
COMMANDS = "commands"
AUDIT = "audit"
EXPLANATIONS = "explanations"
DEAD_LETTERS = "dead-letters"
WEBHOOK_DEAD_LETTERS = "webhook-dead-letters"

# Partitions are the unit of sharing between workers. 16: a blocked read over 16 streams wakes as fast as
# over one, and 16 workers are more than the largest ward needs. Commands lie as samples do, so that the
# worker that holds a bed also receives its commands.
_PARTITIONS = 16

TEN_MINUTES_MS = 600_000

TOPICS: dict[str, TopicConfig] = {
    # Ten minutes: enough to refill a worker's rings after any outage that an operator would sit through.
    SAMPLES: TopicConfig(_PARTITIONS, retention_ms=TEN_MINUTES_MS),
    FINDINGS: TopicConfig(1, retention_ms=TEN_MINUTES_MS),
    VITALS: TopicConfig(1, retention_ms=TEN_MINUTES_MS),
    # Alarms are few and small (0.5 kB); 100 000 are weeks of a ward.
    ALARMS: TopicConfig(1, maxlen=100_000),
    COMMANDS: TopicConfig(_PARTITIONS, retention_ms=TEN_MINUTES_MS),
    AUDIT: TopicConfig(1, maxlen=100_000),
    # Arrays of 100 kB for beds being watched; a page that missed a minute of them does not want them back.
    EXPLANATIONS: TopicConfig(1, retention_ms=60_000),
    DEAD_LETTERS: TopicConfig(1, maxlen=1_000),
    # Alarms that a web address has not taken in a day: somebody will want to send them by hand.
    WEBHOOK_DEAD_LETTERS: TopicConfig(1, maxlen=10_000),
}

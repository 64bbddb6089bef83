"""What is known of every bed at this moment, and how it is read from the streams."""

"""The live page: every bed at a glance, one bed in full."""

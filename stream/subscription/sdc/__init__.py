"""Alarms as BICEPS alert conditions: a provider of ISO/IEEE 11073 SDC."""

"""Pictures and pages of an analysis, and of an alarm."""

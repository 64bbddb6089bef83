"""Faults on purpose: what a feed has to survive, by a script, the same each time."""

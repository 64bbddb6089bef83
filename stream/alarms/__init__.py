"""Alarms of a bed: which conditions there are, when one is an alarm, and what becomes of it.

`conditions` is the risk table; `evidence` says when windows and silence amount to a condition; `machine`
turns conditions into alarms that are raised, acknowledged, latched, paused and ended; `state` is what a bed
has to remember of all that.
"""

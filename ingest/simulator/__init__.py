"""A simulated 12-lead patient: for demonstrations, load and fault tests, never for figures of quality.

A detector tuned on these signals would learn the simulator; every figure about detection comes from
recordings of people.
"""

from ingest.simulator.patient import PatientSimulator
from ingest.simulator.timeline import Episode, Kind, parse_timeline

__all__ = ["Episode", "Kind", "PatientSimulator", "parse_timeline"]

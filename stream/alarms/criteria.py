"""By what the scores of a model are judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from models.manifest import AlarmRule, Manifest, Thresholds


@dataclass(frozen=True, slots=True)
class Criteria:
    """What of a model turns its scores into findings and alarms.

    Attributes
    ----------
    model : str
        Its name.
    thresholds : Thresholds
        Of the precision in which it runs.
    alarm : AlarmRule
    """

    model: str
    thresholds: Thresholds
    alarm: AlarmRule

    @classmethod
    def of(cls, manifest: Manifest, precision: str) -> Self:
        """Return those of a model in one of its precisions."""
        return cls(manifest.name, manifest.thresholds[precision], manifest.alarm)

"""What an evaluation found: the fields of ``bedside evaluate --json``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

Interval = tuple[float, float]
"""95 %, by bootstrap over patients."""

FEW = 5
"""Fewer normal or abnormal recordings than this are no sample to draw from: their interval says nothing."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Figures(_Part):
    """Abnormal recordings against normal ones; None where a figure needs recordings that are not there."""

    n: int
    n_normal: int
    n_abnormal: int
    n_patients: int
    """A recording whose patient is unknown counts as one."""
    auroc: float | None
    auroc_ci: Interval | None
    auprc: float | None
    auprc_ci: Interval | None
    prevalence: float | None
    """Share of abnormal recordings: the AUPRC of a score that knows nothing."""
    threshold: float
    """The stored one for a recording, from validation normals."""
    sensitivity: float | None
    sensitivity_ci: Interval | None
    specificity: float | None
    specificity_ci: Interval | None
    f1: float | None
    f1_ci: Interval | None
    precision_at_recall_90: float | None
    """At the highest threshold that finds 90 % of these abnormal recordings, whatever the stored one."""
    precision_at_recall_90_ci: Interval | None
    missing: str | None
    """Why figures are None."""

    @property
    def few(self) -> bool:
        """Whether there are too few recordings to take the figures, and their intervals, seriously."""
        return min(self.n_normal, self.n_abnormal) < FEW


class Level(_Part):
    """How many normals are above what the stored percentiles say."""

    percentile: float
    expected: float
    """Share of validation normals above it."""
    observed: float
    observed_ci: Interval | None


class Calibration(_Part):
    """Whether a percentile of validation normals means the same to the normals evaluated."""

    windows: tuple[Level, ...]
    """Windows above stored percentiles; each recording counts alike."""
    record: Level
    """Recordings above the record threshold."""
    error: float
    """Mean of the absolute differences of `windows`."""


class Diagnosis(_Part):
    """Abnormal recordings with one diagnosis, rhythm-only ones among them, against all normals."""

    code: str
    name: str
    n: int
    n_rhythm_only: int
    auroc: float | None
    auroc_ci: Interval | None
    sensitivity: float
    sensitivity_ci: Interval | None


class Robustness(_Part):
    """The main figures of changed recordings, and how far they moved from those of the same recordings."""

    name: str
    kind: str
    n: int
    """Recordings that the change can be made to."""
    n_abnormal: int
    auroc: float | None
    auroc_ci: Interval | None
    auroc_delta: float | None
    auroc_delta_ci: Interval | None
    auprc: float | None
    auprc_delta: float | None
    sensitivity: float | None
    sensitivity_delta: float | None
    specificity: float | None
    specificity_delta: float | None


class Group(Figures):
    """The figures of one data set, or of all; rhythm-only abnormalities stand apart."""

    rhythm_only: Figures | None
    """Abnormal recordings whose only finding is one of rhythm, against the same normals."""
    calibration: Calibration | None
    diagnoses: tuple[Diagnosis, ...]
    robustness: tuple[Robustness, ...] | None
    """None if it was not asked for."""


class SkippedRecording(_Part):
    """A labelled recording that could not be scored."""

    path: str
    why: str


class Subject(_Part):
    """What was evaluated, and on what."""

    model: str
    backend: str
    precision: str
    model_sha256: str | None
    """Of the file that holds the network."""
    index: str
    index_sha256: str
    split: str | None
    """None: all rows."""
    dataset: str | None
    resamples: int
    seed: int
    notes: tuple[str, ...]
    """What a reader of the figures must know."""


class Evaluation(Group, Subject):
    """Everything that an evaluation found.

    The figures at the top are those of all recordings together.
    """

    unlabelled: int
    """Rows left out because nobody said what they are."""
    skipped: tuple[SkippedRecording, ...]
    groups: dict[str, Group]
    """By data set; recordings that name none are in the figures of all."""

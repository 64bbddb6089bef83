"""The manifest of a model bundle: everything about a model but its weights."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

PositiveFloat = Annotated[float, Field(gt=0)]


class _Part(BaseModel):
    # NaN and infinity would pass every comparison of a rule unseen.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FilterSpec(_Part):
    """The causal band-pass in front of the model (see `stream.preprocess`)."""

    highpass_hz: PositiveFloat = 0.5
    """-3 dB point of a second-order Butterworth high-pass."""
    stop_hz: PositiveFloat = 50.0
    """Where the Chebyshev type II low-pass has reached its stop band."""
    stop_db: PositiveFloat = 30.0
    order: Annotated[int, Field(ge=1, le=10)] = 6
    delay_ms: float = 0.0
    """Group delay at 10 Hz of the filter on a 500 Hz source; subtracted when drawn."""


class WindowSpec(_Part):
    """What the model sees at once."""

    fs: PositiveFloat
    """The model's sampling frequency, Hz."""
    samples: Annotated[int, Field(gt=0)]
    hop: Annotated[int, Field(gt=0)]
    normalisation: Literal["zscore"] = "zscore"
    """Each lead minus its mean, divided by its standard deviation, over the valid samples of the window."""
    floor_mv: PositiveFloat = 0.01
    """A lead whose standard deviation is below this is flat: masked, not divided by."""

    @property
    def seconds(self) -> float:
        return self.samples / self.fs


class ScoreSpec(_Part):
    """How an error becomes a score (see `models.scoring`).

    The error of a lead is standardised on training normals with as many leads present, the mean over the
    present leads once more, so that a score from three leads reads like one from twelve. All statistics
    are over training normals from which random leads were taken away.
    """

    kind: Literal["log_mse"] = "log_mse"
    lead_mean: tuple[tuple[float, ...], ...]
    """Mean log error of each lead (column), with 1, 2 … leads present (row)."""
    lead_std: tuple[tuple[PositiveFloat, ...], ...]
    count_mean: tuple[float, ...]
    """Mean of the raw window score, with 1, 2 … leads present."""
    count_std: tuple[PositiveFloat, ...]

    @model_validator(mode="after")
    def _shapes_fit(self) -> Self:
        leads = len(self.count_mean)
        rows = (*self.lead_mean, *self.lead_std)
        if not (len(self.lead_mean) == len(self.lead_std) == len(self.count_std) == leads):
            raise ValueError("score: all statistics need one row for each number of leads")
        if any(len(row) != leads for row in rows):
            raise ValueError("score: lead_mean and lead_std need one column for each lead")
        return self


class Thresholds(_Part):
    """Operating points, all from validation normals."""

    record: float
    """Screening: verdict on a whole recording, the 95th percentile of record scores."""
    window: float
    """Alarm: a window above this counts towards an alarm."""
    quantiles: tuple[float, ...]
    """Window scores of validation normals at evenly spaced percentiles from 0 to 100."""

    @field_validator("quantiles")
    @classmethod
    def _ascending(cls, quantiles: tuple[float, ...]) -> tuple[float, ...]:
        if len(quantiles) < 2 or any(low > high for low, high in pairwise(quantiles)):
            raise ValueError("quantiles: need at least two values, ascending")
        return quantiles

    def percentile(self, score: float) -> float:
        """Return the share of validation normals with a lower score, 0 to 100."""
        return float(np.interp(score, self.quantiles, np.linspace(0.0, 100.0, len(self.quantiles))))


class AlarmRule(_Part):
    """When windows become an alarm: `k` of the last `n` over the threshold raise it, `clear` end it."""

    # `clear` or fewer of the last `n`, that is: lower than `k`, so that an alarm does not flutter.

    k: Annotated[int, Field(ge=1)]
    n: Annotated[int, Field(ge=1)]
    clear: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _can_be_raised(self) -> Self:
        if not self.clear < self.k <= self.n:
            raise ValueError(f"alarm: needs clear < k <= n, has {self.clear}, {self.k}, {self.n}")
        return self


class Golden(_Part):
    """A stored input with its outputs: a session that does not reproduce it is refused."""

    file: str
    rtol: PositiveFloat
    atol: PositiveFloat


class Manifest(_Part):
    """Everything about a model but its weights."""

    format: Literal[1] = 1
    name: str
    architecture: str
    description: str
    created: str
    """Date of training, ISO 8601."""
    leads: Annotated[tuple[str, ...], Field(min_length=1)]
    filter: FilterSpec
    window: WindowSpec
    score: ScoreSpec
    thresholds: dict[str, Thresholds]
    """By precision."""
    alarm: AlarmRule
    golden: dict[str, Golden]
    """By precision."""
    max_batch: Annotated[int, Field(ge=1)]
    parameters: int
    hyperparameters: dict[str, Any]
    metrics: dict[str, Any]
    """What was measured, by data set; development figures, with the number of records."""
    data: dict[str, Any]
    """Provenance of the training and validation data: sources, licences, counts, hash of the index."""
    sha256: dict[str, str]
    """Hash of every other file of the bundle."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if len(set(self.leads)) != len(self.leads):
            raise ValueError("leads: a name stands twice")
        if len(self.score.count_mean) != len(self.leads):
            raise ValueError(f"score: needs statistics for {len(self.leads)} leads")
        if not self.thresholds or self.thresholds.keys() != self.golden.keys():
            raise ValueError("thresholds and golden need the same precisions, at least one")
        return self

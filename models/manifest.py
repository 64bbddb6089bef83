"""The manifest of a model bundle: everything about a model but its weights."""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

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
    """How what a network says becomes a score (see `models.scoring`).

    The error of a lead is standardised on training normals with as many leads present. To the mean over the
    present leads comes the distance of the window's features, standardised in the same way, and the sum is
    standardised once more, so that a score from three leads reads like one from twelve. All statistics are
    over training normals from which random leads were taken away.
    """

    kind: Literal["mse", "log_mse", "log_mae", "log_normalised", "elbo", "attention_elbo", "restoration"] = (
        "log_mse"
    )
    """What the error of a lead is (see `models.scoring.lead_errors`)."""
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Weight of the squared error in the two ELBO kinds, that of the log-variance is the rest."""
    beta: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the divergence in the two ELBO kinds. Gaussian likelihood: 0.5 and 1; thesis: 0.4 and 0.6."""
    distance_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the feature distance beside the mean lead error, both in standard deviations; 0: it is not
    used."""
    lead_mean: tuple[tuple[float, ...], ...]
    """Mean error of each lead (column), with 1, 2 … leads present (row)."""
    lead_std: tuple[tuple[PositiveFloat, ...], ...]
    distance_mean: tuple[float, ...] = ()
    """Mean of the feature distance, with 1, 2 … leads present; empty if it is not used."""
    distance_std: tuple[PositiveFloat, ...] = ()
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
        used = leads if self.distance_weight else 0
        if not len(self.distance_mean) == len(self.distance_std) == used:
            raise ValueError("score: distance_mean and distance_std need one value for each number of leads")
        return self


class Tail(_Part):
    r"""A generalised Pareto distribution, fitted to what lies above a high value.

    `training.calibration.tail` fits it. Among normals, a value :math:`z` above `start` is exceeded with
    probability

    .. math:: \Pr(X > z) = \zeta \left(1 + \xi \frac{z - u}{\sigma}\right)^{-1/\xi}

    where :math:`u` is `start`, :math:`\sigma` `scale`, :math:`\xi` `shape` and :math:`\zeta` `share`
    (Coles, An Introduction to Statistical Modeling of Extreme Values, 2001, section 4.3).
    """

    start: float
    """The tail begins above this value."""
    shape: float
    """0: an exponential tail; negative: one with an end; positive: a heavy one."""
    scale: PositiveFloat
    excesses: Annotated[int, Field(ge=1)]
    """Values above `start`, on which the fit rests."""
    share: Annotated[float, Field(gt=0, le=1)]
    """Of all values, those above `start`."""

    def level(self, probability: float) -> float:
        """Return the value that is exceeded with a probability; below `share`, for it is about the tail."""
        ratio = self.share / probability
        if abs(self.shape) < 1e-9:
            return self.start + self.scale * float(np.log(ratio))
        return float(self.start + self.scale / self.shape * (ratio**self.shape - 1))


class FalseAlarmRate(_Part):
    """Alarms that the rule raised on stretches of normal ECG, none of which was due."""

    rate: Annotated[float, Field(ge=0)]
    """Per bed-hour."""
    interval: tuple[float, float]
    """95 %, by patients (see `training.calibration.thresholds.rate_interval`)."""
    alarms: Annotated[int, Field(ge=0)]
    hours: PositiveFloat
    """During which the rule could have raised one."""
    stretches: Annotated[int, Field(ge=1)]
    patients: Annotated[int, Field(ge=1)]


class Thresholds(_Part):
    """Operating points, all from validation recordings (docs/thresholds.md says how).

    What has a default was not kept by the first models.
    """

    record: float
    """Screening: verdict on a whole recording, the 95th percentile of record scores of normals."""
    window: float
    """Alarm: a window above this counts towards an alarm."""
    quantiles: tuple[float, ...]
    """Window scores of validation normals at evenly spaced percentiles from 0 to 100."""
    records: int | None = None
    """Validation normals that were scored."""
    record_interval: tuple[float, float] | None = None
    """95 %, of `record`."""
    record_methods: dict[str, float] = {}
    """What else `record` could be: ``p95``, ``pot`` (one normal in a hundred is above), and with labelled
    abnormal recordings ``f1`` and ``youden``."""
    record_quantiles: tuple[float, ...] = ()
    """Record scores of validation normals, as `quantiles`."""
    record_tail: Tail | None = None
    """Of the record scores of normals."""
    window_interval: tuple[float, float] | None = None
    """95 %, of `window`."""
    tail: Tail | None = None
    """Of the values of `window` from which on a stretch of normal ECG raises no alarm."""
    false_alarms_per_bed_hour: dict[str, FalseAlarmRate] = {}
    """At `window`, on stretches of validation normals: ``all``, and by where they come from."""

    @field_validator("quantiles", "record_quantiles")
    @classmethod
    def _ascending(cls, quantiles: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        optional = info.field_name == "record_quantiles" and not quantiles
        if not optional and (len(quantiles) < 2 or any(low > high for low, high in pairwise(quantiles))):
            raise ValueError(f"{info.field_name}: need at least two values, ascending")
        return quantiles

    @field_validator("record_interval", "window_interval")
    @classmethod
    def _in_order(cls, interval: tuple[float, float] | None) -> tuple[float, float] | None:
        if interval is not None and interval[0] > interval[1]:
            raise ValueError("an interval ends before it begins")
        return interval

    def percentile(self, score: float) -> float:
        """Return the share of validation normals' windows with a lower score, 0 to 100."""
        return _percentile(score, self.quantiles)

    def record_percentile(self, score: float) -> float | None:
        """Return the share of validation normals with a lower record score, 0 to 100, None if not kept."""
        return _percentile(score, self.record_quantiles) if self.record_quantiles else None


def _percentile(score: float, quantiles: tuple[float, ...]) -> float:
    # `numpy.interp` for one number: a fiftieth of its time, which a ward spends for each of its windows.
    if not quantiles[0] < score < quantiles[-1]:
        return 0.0 if score <= quantiles[0] else 100.0
    above = bisect_right(quantiles, score)
    low, high = quantiles[above - 1], quantiles[above]
    return 100.0 * (above - 1 + (score - low) / (high - low)) / (len(quantiles) - 1)


class MapCheck(_Part):
    """Whether a map of a window shows where the unusual part is (see `training.explanation`).

    From anomalies inserted in real normals, at a known place.
    """

    localisation: Annotated[float, Field(ge=0, le=1)]
    """Share of anomalies that the highest point of the map lies in."""
    chance: Annotated[float, Field(ge=0, le=1)]
    """The same of the map of the window without the anomaly."""
    localisation_interval: tuple[float, float]
    """95 %, of the difference of the two."""
    auroc: float
    """Of the points of the map: probability that one inside the anomaly is higher than one outside."""
    deletion_gain: float
    """By how much the score is lower, on average, when what the map points at is taken away rather than
    something else of the same size; in standard deviations of normals."""
    interval: tuple[float, float]
    """95 %, of `deletion_gain`."""
    insertion_gain: float
    """By how much the score is higher when only that is put in."""
    recordings: Annotated[int, Field(ge=1)]
    anomalies: Annotated[int, Field(ge=1)]
    informative: bool
    """Both intervals lie above zero: the map may be shown."""


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
    """A stored input with its outputs: a session that does not reproduce it is refused.

    The outputs are those of the network as trained, in float32, for every precision. An output may differ by
    ``atol + rtol * |output|``.
    """

    file: str
    rtol: PositiveFloat
    atol: PositiveFloat
    output_atol: dict[str, PositiveFloat] = {}
    """In place of `atol`, by output: a lower precision is off by another size in each."""
    score_atol: PositiveFloat | None = None
    """By how much a score may differ; None: by what the differences of the outputs can make of it."""


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
    explanations: dict[str, MapCheck] = {}
    """By map: ``error`` and the attentions. One that is not informative is not shown."""
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

"""Operating points: from which score on a recording is called abnormal, and a window counts towards an alarm.

Everything here is computed from validation recordings, and from normals alone but for two alternatives that
are stored beside the operating points. docs/thresholds.md says what it means.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binom, chi2

from models.manifest import AlarmRule, FalseAlarmRate, Thresholds, WindowSpec
from training.calibration.statistics import RECORD_PERCENTILE, record_scores, thresholds
from training.calibration.stretches import StretchScores
from training.calibration.tail import fit_tail, level_interval

Float64Array = npt.NDArray[np.float64]

RARE = 0.01
"""Peaks over threshold: one normal recording in a hundred."""
FALSE_ALARMS_PER_BED_HOUR = 0.1
"""Alarms: at most this many on normal ECG. On a ward of 64 beds these are six an hour. In an audit of 77
intensive-care beds monitors gave 187 audible alarms per bed and day, nearly eight an hour, most of them false
(Drew et al., PLoS ONE 9, 2014): an alarm on top of those has to be rare to be heard."""

_CONFIDENCE = 0.95
# As many as of window scores.
_QUANTILES = 101
_DECIMALS = 6


def operating_points(
    window_scores: Float64Array,
    record: npt.NDArray[np.intp],
    n_records: int,
    *,
    abnormal: Float64Array | None = None,
    stretches: Sequence[StretchScores] = (),
    rule: AlarmRule,
    window: WindowSpec,
) -> Thresholds:
    """Set the operating points.

    Parameters
    ----------
    window_scores : numpy.ndarray of float64, shape (windows,)
        Of validation normals.
    record : numpy.ndarray of int, shape (windows,)
        Number of the recording of each window.
    n_records : int
    abnormal : numpy.ndarray of float64, shape (recordings,), optional
        Record scores of validation recordings labelled abnormal, without those whose only finding is one of
        rhythm. They set alternatives, never an operating point.
    stretches : sequence of StretchScores
        Of validation normals. Without them the alarm threshold is a percentile of window scores.
    rule : AlarmRule
    window : WindowSpec

    Returns
    -------
    Thresholds

    Raises
    ------
    ValueError
        If there is no score, or the windows that the alarm rule looks at span less than two window lengths:
        windows that overlap are not independent, and one disturbance would be counted many times.
    """
    span = (rule.n - 1) * window.hop + window.samples
    if span < 2 * window.samples:
        raise ValueError(f"alarm rule: {rule.n} windows span less than two window lengths")
    records = record_scores(window_scores, record, n_records)
    records = records[~np.isnan(records)]
    if not len(records):
        raise ValueError("no validation normal has a score")
    percentiles = thresholds(window_scores, record, n_records)
    tail = fit_tail(records)
    methods = {"p95": percentiles.record}
    if tail is not None:
        methods["pot"] = tail.level(RARE)
    if abnormal is not None and (found := abnormal[~np.isnan(abnormal)]).size:
        methods |= {"f1": f1_optimal(records, found), "youden": youden(records, found)}
    watched = [stretch for stretch in stretches if stretch.watched(rule)]
    return Thresholds.model_validate(
        percentiles.model_dump()
        | {
            "records": len(records),
            "record_interval": quantile_interval(records, RECORD_PERCENTILE / 100),
            "record_methods": {name: round(value, _DECIMALS) for name, value in methods.items()},
            "record_quantiles": np.quantile(records, np.linspace(0.0, 1.0, _QUANTILES))
            .round(_DECIMALS)
            .tolist(),
            "record_tail": tail,
        }
        | (alarm_point(watched, rule, window, percentiles.record) if watched else {})
    )


def alarm_point(
    stretches: Sequence[StretchScores], rule: AlarmRule, window: WindowSpec, screening: float
) -> dict[str, Any]:
    """Choose the alarm threshold by its false alarms.

    Each stretch has a level: the lowest threshold at which it raises no alarm. The alarm threshold is the
    highest of

    - the level that, by a tail fitted to the levels of all stretches (`training.calibration.tail`), so few
      of them exceed that `FALSE_ALARMS_PER_BED_HOUR` alarms are raised;
    - the lowest level at which no more are counted;
    - the screening threshold.

    Parameters
    ----------
    stretches : sequence of StretchScores
        At least one; in each an alarm is possible.
    rule : AlarmRule
    window : WindowSpec
    screening : float

    Returns
    -------
    dict
        `Thresholds.window`, ``window_interval``, ``tail`` and ``false_alarms_per_bed_hour``.
    """
    levels = np.array([stretch.alarm_level(rule) for stretch in stretches])
    hours = _hours(stretches, rule, window)
    probability = FALSE_ALARMS_PER_BED_HOUR * hours / len(stretches)
    tail = fit_tail(levels)
    interval = None
    candidates = [screening, _counted(stretches, levels, rule, FALSE_ALARMS_PER_BED_HOUR * hours)]
    if tail is not None and probability < tail.share:
        candidates.append(tail.level(probability))
        interval = level_interval(levels, probability, [stretch.patient for stretch in stretches])
    # Upwards: a level that is rounded down raises its alarm.
    threshold = math.ceil(max(candidates) * 10**_DECIMALS) / 10**_DECIMALS
    groups = {"all": list(stretches)}
    for source in sorted({stretch.source for stretch in stretches}):
        groups[source] = [stretch for stretch in stretches if stretch.source == source]
    return {
        "window": threshold,
        "window_interval": interval and (min(interval[0], threshold), max(interval[1], threshold)),
        "tail": tail,
        "false_alarms_per_bed_hour": {
            name: false_alarm_rate(group, rule, window, threshold) for name, group in groups.items()
        },
    }


def false_alarm_rate(
    stretches: Sequence[StretchScores], rule: AlarmRule, window: WindowSpec, threshold: float
) -> FalseAlarmRate:
    """Count the alarms that a threshold raises on stretches of normal ECG.

    Parameters
    ----------
    stretches : sequence of StretchScores
        At least one, with a window at which an alarm is possible.
    rule : AlarmRule
    window : WindowSpec
    threshold : float
    """
    by_patient: Counter[str] = Counter()
    for stretch in stretches:
        raises = stretch.alarm_level(rule) > threshold
        by_patient[stretch.patient] += stretch.alarms(rule, threshold) if raises else 0
    hours = _hours(stretches, rule, window)
    alarms = by_patient.total()
    return FalseAlarmRate(
        rate=round(alarms / hours, _DECIMALS),
        interval=rate_interval(list(by_patient.values()), hours),
        alarms=alarms,
        hours=round(hours, 4),
        stretches=len(stretches),
        patients=len(by_patient),
    )


def rate_interval(events: Sequence[int], hours: float) -> tuple[float, float]:
    r"""Return the 95 % interval of a rate of which some patients have more than others.

    Patients have events or not, independently; the events of one come together. With
    :math:`y = \sum_i e_i / h`, :math:`v = \sum_i e_i^2 / h^2` and :math:`w = \max_i e_i / h`
    (Fay and Feuer, Stat. Med. 16, 1997):

    .. math:: \frac{v}{2y} \chi^2_{2y^2/v}(0.025), \qquad
              \frac{v + w^2}{2(y + w)} \chi^2_{2(y + w)^2/(v + w^2)}(0.975)

    Where no patient has more than one event this is the exact interval of a Poisson rate. Of no event at all
    the upper end is one-sided, :math:`-\ln 0.05 / h`: three divided by the hours.

    Parameters
    ----------
    events : sequence of int
        Of each patient.
    hours : float
        Of all patients together.
    """
    counts = np.asarray(events, float)
    if not counts.any():
        return 0.0, round(-math.log(1 - _CONFIDENCE) / hours, _DECIMALS)
    y, v, w = counts.sum() / hours, np.sum(counts**2) / hours**2, counts.max() / hours
    outside = (1 - _CONFIDENCE) / 2
    low = v / (2 * y) * chi2.ppf(outside, 2 * y**2 / v)
    high = (v + w**2) / (2 * (y + w)) * chi2.ppf(1 - outside, 2 * (y + w) ** 2 / (v + w**2))
    return round(float(low), _DECIMALS), round(float(high), _DECIMALS)


def quantile_interval(values: Float64Array, share: float) -> tuple[float, float]:
    """Return the 95 % interval of a quantile: two of the values, whatever they are distributed like.

    The number of values below the true quantile is binomial (Conover, Practical Nonparametric Statistics,
    1999, section 3.2). Of too few values there is none that is surely above the quantile, as of fewer than
    72 for the 95th percentile: the end is then the highest value, and the true one may lie beyond.

    Parameters
    ----------
    values : numpy.ndarray of float64, shape (n,)
    share : float
        Of the distribution, below the quantile.
    """
    ordered = np.sort(values)
    outside = (1 - _CONFIDENCE) / 2
    low = int(binom.ppf(outside, len(values), share))
    high = int(binom.ppf(1 - outside, len(values), share)) + 1
    ends = ordered[max(low - 1, 0)], ordered[min(high - 1, len(values) - 1)]
    return round(float(ends[0]), _DECIMALS), round(float(ends[1]), _DECIMALS)


def f1_optimal(normal: Float64Array, abnormal: Float64Array) -> float:
    """Return the threshold with the highest F1 score, halfway between two record scores or the highest.

    It depends on the share of abnormal recordings, which is another on a ward.
    """
    levels, false, true = _counts(normal, abnormal)
    return _best(levels, 2 * true / (len(abnormal) + true + false))


def youden(normal: Float64Array, abnormal: Float64Array) -> float:
    """Return the threshold with the highest sum of sensitivity and specificity (Youden, Cancer 3, 1950)."""
    levels, false, true = _counts(normal, abnormal)
    return _best(levels, true / len(abnormal) - false / len(normal))


def _counts(normal: Float64Array, abnormal: Float64Array) -> tuple[Float64Array, Float64Array, Float64Array]:
    # Possible thresholds, and how many of either lie above each.
    scores = np.unique(np.concatenate([normal, abnormal]))
    levels = np.append((scores[:-1] + scores[1:]) / 2, scores[-1])
    above = [
        len(group) - np.searchsorted(np.sort(group), levels, "right").astype(float)
        for group in (normal, abnormal)
    ]
    return levels, above[0], above[1]


def _best(levels: Float64Array, figure: Float64Array) -> float:
    # Of equals the highest: it calls the fewest recordings abnormal.
    return float(levels[np.flatnonzero(figure == figure.max())[-1]])


def _counted(
    stretches: Sequence[StretchScores], levels: Float64Array, rule: AlarmRule, allowed: float
) -> float:
    # From the highest level, at which there is no alarm, down while they are few enough.
    lowest = float(levels.max())
    for level in np.unique(levels)[::-1].tolist():
        above = [stretch for stretch, own in zip(stretches, levels, strict=True) if own > level]
        if sum(stretch.alarms(rule, level) for stretch in above) > allowed:
            break
        lowest = level
    return lowest


def _hours(stretches: Sequence[StretchScores], rule: AlarmRule, window: WindowSpec) -> float:
    return sum(stretch.watched(rule) for stretch in stretches) * window.hop / window.fs / 3600

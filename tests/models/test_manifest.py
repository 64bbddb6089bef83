from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from models.bundle import load_bundle
from models.manifest import FalseAlarmRate, MapCheck, ScoreSpec, Tail, Thresholds
from tests.models.conftest import LEADS, small_spec

FULL: dict[str, Any] = {
    "record": 1.5,
    "window": 2.5,
    "quantiles": [-2.0, 0.0, 3.0],
    "records": 60,
    "record_interval": [1.2, 1.9],
    "record_methods": {"p95": 1.5, "pot": 2.2},
    "record_quantiles": [-1.0, 0.0, 2.0],
    "record_tail": {"start": 1.0, "shape": 0.1, "scale": 0.4, "excesses": 10, "share": 0.17},
    "window_interval": [2.1, 4.0],
    "tail": {"start": 2.0, "shape": 0.1, "scale": 0.3, "excesses": 10, "share": 0.12},
    "false_alarms_per_bed_hour": {
        "all": {
            "rate": 0.0,
            "interval": [0.0, 0.6],
            "alarms": 0,
            "hours": 5.0,
            "stretches": 60,
            "patients": 58,
        }
    },
}


def test_thresholds_survive_their_own_json() -> None:
    found = Thresholds.model_validate(FULL)
    assert Thresholds.model_validate_json(found.model_dump_json()) == found
    assert json.loads(found.model_dump_json()) == FULL


def test_thresholds_of_the_first_models_still_load() -> None:
    found = Thresholds(record=1.0, window=2.0, quantiles=(0.0, 1.0))
    assert (found.tail, found.record_methods, found.false_alarms_per_bed_hour) == (None, {}, {})
    assert found.record_percentile(0.5) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"record_quantiles": [1.0, 0.0]}, "record_quantiles: need at least two values, ascending"),
        ({"record_quantiles": [1.0]}, "record_quantiles: need at least two values"),
        ({"quantiles": []}, "quantiles: need at least two values"),
        ({"window_interval": [2.0, 1.0]}, "ends before it begins"),
        ({"record_interval": [2.0, 1.0]}, "ends before it begins"),
        ({"window": float("inf")}, "window"),
        ({"tail": {**FULL["tail"], "scale": 0.0}}, "tail.scale"),
        ({"tail": {**FULL["tail"], "share": 1.5}}, "tail.share"),
        ({"screening": 1.0}, "screening"),
    ],
)
def test_thresholds_that_cannot_be_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Thresholds.model_validate({**FULL, **change})


def test_percentiles_of_recordings_run_from_0_to_100() -> None:
    found = Thresholds.model_validate(FULL)
    assert [found.record_percentile(s) for s in (-9.0, -1.0, 0.0, 1.0, 9.0)] == [0, 0, 50, 75, 100]
    assert found.percentile(0.0) == 50.0


@given(
    st.floats(-0.45, 0.45),
    st.floats(0.05, 1.0),
    st.floats(0.01, 0.99),
    st.floats(0.01, 0.99),
)
def test_the_level_of_a_tail_is_exceeded_with_the_probability(
    shape: float, scale: float, share: float, part: float
) -> None:
    tail = Tail(start=1.0, shape=shape, scale=scale, excesses=10, share=share)
    level = tail.level(share * part)
    assert level >= tail.start
    # What the docstring says, the other way round.
    y = (level - tail.start) / scale
    beyond = np.exp(-y) if abs(shape) < 1e-9 else (1 + shape * y) ** (-1 / shape)
    assert beyond == pytest.approx(part, rel=1e-4)


def test_an_explanation_has_all_its_figures() -> None:
    check = MapCheck(
        localisation=0.2,
        chance=0.01,
        localisation_interval=(0.15, 0.25),
        auroc=0.8,
        deletion_gain=1.8,
        interval=(1.7, 1.9),
        insertion_gain=4.0,
        recordings=56,
        anomalies=336,
        informative=True,
    )
    manifest = load_bundle("cae-100hz").manifest.model_copy(update={"explanations": {"error": check}})
    again = type(manifest).model_validate_json(manifest.model_dump_json())
    assert again.explanations["error"] == check


def test_a_rate_needs_hours() -> None:
    with pytest.raises(ValidationError, match="hours"):
        FalseAlarmRate(rate=0.0, interval=(0.0, 1.0), alarms=0, hours=0.0, stretches=1, patients=1)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"distance_weight": 0.5, "distance_mean": ()}, "distance_mean and distance_std need one value"),
        ({"distance_weight": 0.5, "distance_std": (1.0,)}, "distance_mean and distance_std need one value"),
        (
            {"distance_mean": (0.0,) * len(LEADS), "distance_std": (1.0,) * len(LEADS)},
            "distance_mean and distance_std",
        ),
        ({"distance_weight": -0.5}, "distance_weight"),
        ({"distance_weight": math.inf}, "distance_weight"),
        ({"distance_weight": 0.5, "distance_std": (1.0, 0.0, 1.0)}, "distance_std"),
        ({"distance_weight": 0.5, "distance_mean": (0.0, math.nan, 0.0)}, "distance_mean"),
        ({"kind": "log_median"}, "kind"),
    ],
)
def test_a_score_that_cannot_be_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        small_spec(**fields)


def test_a_score_with_a_distance_survives_its_own_json() -> None:
    spec = small_spec("log_mae", distance_weight=0.5)
    assert ScoreSpec.model_validate_json(spec.model_dump_json()) == spec

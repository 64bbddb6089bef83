from __future__ import annotations

from collections.abc import Callable

from models.bundle import Bundle, write_bundle
from models.commands import describe
from models.manifest import FalseAlarmRate, MapCheck, Thresholds

Make = Callable[..., Bundle]

RATE = FalseAlarmRate(rate=0.2, interval=(0.02, 0.7), alarms=1, hours=5.0, stretches=60, patients=58)


def with_everything(bundle: Bundle) -> Bundle:
    full = Thresholds(
        record=1.5,
        window=2.5,
        quantiles=(-2.0, 3.0),
        records=60,
        record_interval=(1.2, 1.9),
        record_methods={"p95": 1.5, "youden": 0.7},
        window_interval=(2.1, 4.0),
        false_alarms_per_bed_hour={"all": RATE, "looped": RATE},
    )
    checks = {
        name: MapCheck(
            localisation=0.21,
            chance=0.01,
            localisation_interval=(0.15, 0.25),
            auroc=0.8,
            deletion_gain=1.8,
            interval=(1.7, 1.9),
            insertion_gain=4.0,
            recordings=56,
            anomalies=336,
            informative=informative,
        )
        for name, informative in (("error", True), ("temporal_attention", False))
    }
    manifest = bundle.manifest.model_copy(
        update={
            "thresholds": {"fp32": full},
            "explanations": checks,
            "data": {"calibration": {"date": "2026-12-01", "model": "small"}},
        }
    )
    return write_bundle(bundle.path, manifest, {file: bundle.read(file) for file in bundle.manifest.sha256})


def test_operating_points_come_with_what_they_rest_on(make_bundle: Make) -> None:
    text = "\n".join(describe(with_everything(make_bundle())))
    assert "screening threshold 1.50 [1.20, 1.90], of a recording, from 60 validation normals" in text
    assert "alarm threshold 2.50 [2.10, 4.00], of a window" in text
    assert "other ways to choose it: youden 0.70" in text
    said = "1 in 5.0 h of 58 patients, 0.20 per bed-hour [0.02, 0.70]"
    assert f"false alarms, all: {said}" in text
    assert f"false alarms, looped: {said}" in text


def test_a_model_says_whose_thresholds_it_has_and_which_maps_it_shows(make_bundle: Make) -> None:
    text = "\n".join(describe(with_everything(make_bundle())))
    assert "thresholds of 2026-12-01, from a user's own recordings; weights of small" in text
    assert "map error: informative; finds 21% of inserted anomalies, by chance 1%" in text
    assert "map temporal_attention: not informative, so not shown" in text


def test_a_model_without_figures_is_described_all_the_same(make_bundle: Make) -> None:
    lines = describe(make_bundle())
    assert "  fp32: screening threshold 1.50, of a recording" in lines
    assert "  fp32: alarm threshold 2.00, of a window" in lines

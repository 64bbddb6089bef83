from __future__ import annotations

from typing import Any

import pytest

from bench.reach import reach
from bench.studies import ablation, changed_keys, command, development, robustness, undertrained
from models.bundle import load_bundle
from training.config import load_config


def figures(mean: float | None = 0.9, ends: tuple[float, float] = (0.8, 0.95)) -> dict[str, Any]:
    found = {"mean": mean, "sd_folds": None, "pooled_ci": list(ends), "n_normal": 56, "n_abnormal": 429}
    return dict.fromkeys(("all", "ptb-xl", "chapman-shaoxing", "georgia"), found)


def study(name: str = "cae-100hz", *changes: str, **by_leads: dict[str, Any]) -> dict[str, Any]:
    """A result of `training.develop`, with nothing but what the tables read."""
    return {
        "config": load_config(name, changes).model_dump(mode="json"),
        "split": "fixed",
        "folds": 1,
        "seeds": 1,
        "code": {"torch": "2.13.0", "device": "cpu"},
        "figures": {"all": figures(), "I,II,V2": figures(), "II": figures()} | by_leads,
    }


def test_a_study_of_the_configuration_itself_is_not_marked() -> None:
    found = study()
    assert changed_keys(found) == {}
    assert undertrained(found) == []
    text = "\n".join(development({"cae-100hz": found}))
    assert "ndertrained" not in text
    assert "Other than configured" not in text


def test_less_training_than_configured_is_marked_and_other_changes_are_told() -> None:
    changes = ("fit.epochs=4", "fit.crops_per_record=2", "window.hop=500", "fit.seed=0")
    found = study("thesis-vae-bilstm-mha", *changes)
    assert undertrained(found) == ["4 of 40 epochs", "2 of 10 windows of each recording in an epoch"]
    text = "\n".join(development({"thesis-vae-bilstm-mha": found}))
    assert "| thesis-vae-bilstm-mha (undertrained) | 12 |" in text
    assert "**Undertrained**: 4 of 40 epochs, 2 of 10 windows" in text
    assert "Other than configured: `window.hop=500`." in text


def test_more_training_than_configured_is_told_and_not_called_too_little() -> None:
    found = study("cae-100hz", "fit.epochs=300")
    assert undertrained(found) == []
    assert changed_keys(found) == {"fit.epochs": (30, 300)}
    assert "Other than configured: `fit.epochs=300`." in "\n".join(development({"cae-100hz": found}))


def test_an_ablation_has_the_command_that_makes_it() -> None:
    found = study("cae-100hz", "score.kind=log_mse", "score.distance_weight=0")
    measure = command(found, "ablation-log-mse.json")
    assert measure == (
        "python -m training.develop --config cae-100hz --index data/index.csv --split fixed --seeds 1"
        " --set score.kind=log_mse --set score.distance_weight=0.0"
        " --json bench/results/ablation-log-mse.json"
    )
    lines = ablation({"log-mse": found, "as-it-is": study()})
    assert any(line.startswith("| log_mse | 0 | fixed split | 0.900 [0.80, 0.95] |") for line in lines)
    assert any(line.startswith("| log_mae | 0.5 |") for line in lines)
    assert measure in lines


@pytest.mark.parametrize(
    ("mean", "ends", "said"),
    [
        (0.90, (0.85, 0.93), "yes"),
        (0.88, (0.85, 0.93), "no, but inside the interval"),
        (0.80, (0.75, 0.85), "no"),
    ],
)
def test_a_goal_is_met_missed_or_inside_the_interval(
    mean: float, ends: tuple[float, float], said: str
) -> None:
    found = study(all=figures(mean, ends))
    lines = reach({"cae-100hz": found}, [load_bundle("cae-100hz")], "cae-100hz")
    (row,) = (line for line in lines if "PTB-XL at least 0.89" in line)
    assert row.split(" | ")[3] == said


def test_what_fewer_leads_lose_is_counted_from_all_leads() -> None:
    found = study(**{"all": figures(0.9), "I,II,V2": figures(0.86)})
    lines = reach({"cae-100hz": found}, [load_bundle("cae-100hz")], "cae-100hz")
    (row,) = (line for line in lines if "lose at most" in line)
    assert row.split(" | ")[2:4] == ["0.040", "no"]


def test_a_goal_without_a_study_and_a_closed_test_split_are_told() -> None:
    bundle = load_bundle("cae-100hz")
    closed = type(bundle)(bundle.path, bundle.manifest.model_copy(update={"metrics": {}}))
    (row, *_) = (line for line in reach({}, [closed], "") if "cae-100hz" in line)
    assert row.endswith("| not measured | – | closed |")


def test_robustness_of_another_model_is_refused() -> None:
    bundle = load_bundle("cae-100hz")
    with pytest.raises(ValueError, match="is of another model"):
        robustness({"cae-100hz": {"weights_sha256": "0"}}, [bundle])
    assert "Not measured." in robustness({}, [bundle])

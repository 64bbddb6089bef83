"""The tables of docs/results.md and models/zoo/README.md, from what trainings and evaluations left.

``python -m training.develop --config NAME --index CSV --json bench/results/develop-NAME.json`` measures
development figures; everything else stands in the manifests of the shipped models.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from models.bundle import Bundle, list_bundles, load_bundle
from models.manifest import Thresholds

_ROOT = Path(__file__).parent.parent
_RESULTS = _ROOT / "bench" / "results"
PAGE = _ROOT / "docs" / "results.md"
CARDS = _ROOT / "models" / "zoo" / "README.md"

_LEADS = {"all": "12", "I,II,V2": "I, II, V2", "II": "II"}
# With fewer recordings of a class an area says nothing, and its interval is not to be trusted.
_FEWEST = 5
_MADE = "<!-- Made by `python -m bench.quality`; change that, not this. -->"

_HEAD = f"""{_MADE}

# Results

How well the models tell abnormal recordings from normal ones, on real recordings: PTB-XL (part),
Chapman-Shaoxing (sample), Georgia (part). The sets are small. Read every figure with its interval, and none
as what another hospital would see: measure that with `bedside evaluate` ([evaluate.md](evaluate.md)).

**AUROC**: the chance that an abnormal recording scores higher than a normal one. Recordings whose only
finding is one of rhythm stand apart.
"""

_DEVELOPMENT = """
## Development figures

What the models were chosen by. Normals of the splits `train` and `val` in five folds by patient: a model is
trained on four, and the normals of the fifth are set against all abnormal recordings of both splits (with
`fixed`: trained on `train`, normals of `val` against all). Mean AUROC over folds and seeds, standard
deviation over folds, and in brackets the 95 % bootstrap interval, by patients, of all held-out scores
together.
"""

_TEST = """
## Test split

The shipped models, with 95 % bootstrap intervals. A training measures it at its end, and nothing is chosen by
it. Patients of the test split are in no other. Sensitivity and specificity are at the record threshold, which
comes from validation normals. Groups with fewer than five normal or abnormal recordings are left out.
"""

_ALARMS = """
## Thresholds and false alarms

From validation normals only ([thresholds.md](thresholds.md)). An alarm takes more than one window over the
alarm threshold; false alarms were counted by the alarm rule itself, on loops of validation normals and on
annotated normal stretches of ambulatory recordings.
"""

_MAPS = """
## Maps

Which of a model's maps say where an anomaly is: anomalies inserted in validation normals, and what happens
to the score when the map's highest points are taken away (`training/explanation.py`). A map that is not
informative is not shown.
"""

_CARD_HEAD = f"""{_MADE}

# Shipped models

Autoencoders trained on normal 12-lead ECGs, for any subset of the twelve leads. Research use only; not
medical devices. Figures with intervals and by data set: [docs/results.md](../../docs/results.md). Each
folder's `manifest.json` has everything: training data with licences and counts, hash of the split,
settings, thresholds, metrics, date, code version.
"""


@click.command()
def main() -> None:
    """Write docs/results.md and models/zoo/README.md.

    \b
    python -m bench.quality
    """  # noqa: D301 (click needs the control character)
    for path, text in ((PAGE, results_page()), (CARDS, model_cards())):
        path.write_text(text, encoding="utf-8")
        click.echo(path.relative_to(_ROOT))


def results_page() -> str:
    """Return the text of docs/results.md."""
    bundles = [load_bundle(name) for name in list_bundles()]
    studies = {
        path.stem.removeprefix("develop-"): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(_RESULTS.glob("develop-*.json"))
    }
    lines = [_HEAD, _DEVELOPMENT, *_development(studies), _TEST]
    for bundle in bundles:
        lines += [f"\n### {bundle.name}\n", *_test(bundle.manifest.metrics["test"])]
    return "\n".join([*lines, _ALARMS, *_alarms(bundles), _MAPS, *_maps(bundles), ""])


def model_cards() -> str:
    """Return the text of models/zoo/README.md."""
    bundles = [load_bundle(name) for name in list_bundles()]
    return "\n".join([_CARD_HEAD, *_cards(bundles), ""])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def _area(value: float | None, ends: Sequence[float] | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" + (f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends else "")


def _development(studies: dict[str, Any]) -> list[str]:
    if not studies:
        return ["None have been measured."]
    rows = []
    for name, study in studies.items():
        for leads, groups in study["figures"].items():
            cells = [name, _LEADS[leads]]
            for group in ("all", "ptb-xl", "chapman-shaoxing", "georgia"):
                found = groups[group]
                spread = f" ± {found['sd_folds']:.3f}" if found["sd_folds"] is not None else ""
                ends = found["pooled_ci"]
                pooled = f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends else ""
                cells.append(f"{found['mean']:.3f}{spread}{pooled}" if found["mean"] is not None else "–")
            rhythm = groups["all"].get("rhythm_only")
            cells.append(f"{rhythm['mean']:.3f}" if rhythm else "–")
            rows.append(cells)
    head = ["model", "leads", "all", "PTB-XL", "Chapman-Shaoxing", "Georgia", "rhythm only, all"]
    lines = _table(head, rows)
    for name, study in studies.items():
        how = f"{study['folds']} folds" if study["split"] == "folds" else "fixed split"
        counts = study["figures"]["all"]["all"]
        code = study["code"]
        lines.append(
            f"\n`{name}`: {how}, {study['seeds']} seeds, {counts['n_normal']} normal and "
            f"{counts['n_abnormal']} abnormal recordings; torch {code['torch']}, {code['device']}."
        )
    return lines


def _test(metrics: dict[str, Any]) -> list[str]:
    rows = []
    for leads, groups in metrics.items():
        for group, found in groups.items():
            for part, figures in ((group, found), (f"{group}, rhythm only", found.get("rhythm_only"))):
                if figures is None or min(figures["n_normal"], figures["n_abnormal"]) < _FEWEST:
                    continue
                rows.append(
                    [
                        _LEADS[leads],
                        part,
                        f"{figures['n_normal']} / {figures['n_abnormal']}",
                        _area(figures["auroc"], figures["auroc_ci"]),
                        _area(figures["auprc"], figures["auprc_ci"]),
                        f"{figures['sensitivity']:.2f}",
                        f"{figures['specificity']:.2f}",
                    ]
                )
    return _table(
        ["leads", "recordings", "normal / abnormal", "AUROC", "AUPRC", "sensitivity", "specificity"], rows
    )


def _alarms(bundles: Sequence[Bundle]) -> list[str]:
    rows = []
    for bundle in bundles:
        for precision, thresholds in bundle.manifest.thresholds.items():
            rows.append(
                [
                    bundle.name,
                    precision,
                    _area(thresholds.record, thresholds.record_interval),
                    _area(thresholds.window, thresholds.window_interval),
                    _false_alarms(thresholds),
                ]
            )
    return _table(
        ["model", "precision", "record threshold", "alarm threshold", "false alarms per bed-hour"], rows
    )


def _false_alarms(thresholds: Thresholds) -> str:
    rate = thresholds.false_alarms_per_bed_hour.get("all")
    if rate is None:
        return "not counted"
    low, high = rate.interval
    counted = f"{rate.alarms} in {rate.hours:.1f} h of {rate.patients} patients"
    return f"{rate.rate:.2f} [{low:.2f}, {high:.2f}], {counted}"


def _maps(bundles: Sequence[Bundle]) -> list[str]:
    rows = [
        [
            bundle.name,
            name.replace("_", " "),
            f"{check.localisation:.2f}",
            f"{check.chance:.2f}",
            f"{check.deletion_gain:.2f}",
            "yes" if check.informative else "no",
        ]
        for bundle in bundles
        for name, check in bundle.manifest.explanations.items()
    ]
    return _table(["model", "map", "finds an anomaly", "by chance", "gain by deletion", "informative"], rows)


def _cards(bundles: Sequence[Bundle]) -> list[str]:
    rows = []
    for bundle in bundles:
        manifest = bundle.manifest
        found = manifest.metrics["test"]["all"]["all"]
        size = sum(file.stat().st_size for file in bundle.path.iterdir())
        window = manifest.window
        rows.append(
            [
                f"`{bundle.name}`",
                manifest.architecture,
                f"{manifest.parameters:,}".replace(",", " "),
                f"{size / 1e6:.1f} MB",
                f"{window.seconds:g} s at {window.fs:g} Hz, every {window.hop / window.fs:g} s",
                f"{sum(manifest.data['recordings']['train'].values())} normals",
                _area(found["auroc"], found["auroc_ci"]),
                manifest.created,
            ]
        )
    head = [
        "model",
        "architecture",
        "parameters",
        "size",
        "window",
        "training normals",
        "AUROC, test split",
        "trained",
    ]
    return _table(head, rows)


if __name__ == "__main__":
    main()

"""The pages docs/results.md and models/zoo/README.md, from what trainings and evaluations left.

``python -m training.develop --config NAME --index CSV --json bench/results/develop-NAME.json`` measures
development figures, ``python -m bench.robustness --index CSV`` what changes of the recordings do; everything
else stands in the manifests of the shipped models.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bench.markdown import area, table
from bench.reach import reach
from bench.studies import LEADS, ablation, development, read_results, robustness
from models.bundle import Bundle, list_bundles, load_bundle
from models.manifest import Thresholds
from stream.settings import Settings

_ROOT = Path(__file__).parent.parent
PAGE = _ROOT / "docs" / "results.md"
CARDS = _ROOT / "models" / "zoo" / "README.md"

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

_REACH = """
## What was reached

The goals were set for development figures. The same figures of the test split stand beside them, for which
no goal was set: it chose nothing, and says how far a development figure can be believed.
"""

_LIMITS = """
What limits the figures:

- **Few recordings.** On the test split the intervals are wider than all differences between the models, and
  PTB-XL's part of it gives lower figures than PTB-XL's development recordings. The latter are what choices
  were made by, which flatters them; the rest is who is in a split of a few dozen patients.
- **Strangers.** PTB-XL scored by a model that saw none of its normals gives lower figures (below,
  `hospitals`) than by one that saw some. That model also has the fewest normals to learn from, for PTB-XL
  has most of them: the two cannot be told apart here.
- **Rhythm.** Where only the rhythm is unusual, each of the few beats of a window is normal, and nothing
  measures the intervals between them. The figures of rhythm alone are the lowest of every model.
- **The threshold, more than the order.** The record threshold is the 95th percentile of so few validation
  normals that its own interval is wide (below). So the sensitivity can be low where the AUROC is not. A
  threshold from normals of one's own (`bedside calibrate`) is the remedy.
- **Attention.** Temporal attention finds inserted anomalies hardly more often than chance (below), so it is
  not shown. Its queries and keys see only the input of their own step; a code of the step's position was
  not tried.
- **Time.** The recurrent configurations of the thesis take a step for each of 500 samples, too many for the
  processors that were there. Where they had less training than configured, the tables say so.

Also tried, and not measured in a way that can be repeated here: windows of other lengths and rates, and a
score for which seconds of all leads are taken away and restored, with masks over time in training. The
latter seemed a little better, for eight runs of the network where the others need one; it is not shipped.
"""

_ABLATION = """
## Other scores, and hospitals that the model has not seen

The default's network, with scores made in other ways: the error as the logarithm of the mean squared
(`log_mse`) or absolute (`log_mae`) difference, and beside it the feature distance with a weight. With
`hospitals` every data set is scored by a model that saw the normals of the others only: what a hospital
that the model has never seen can expect of it, for as much as these data sets differ. Cells are as above.
The default was chosen by earlier runs of the same kind; these repeat the comparison so that it can be
repeated.
"""

_DEVELOPMENT = """
## Development figures

What the models were chosen by. Normals of the splits `train` and `val` in five folds by patient: a model is
trained on four, and the normals of the fifth are set against all abnormal recordings of both splits (with
`fixed`: trained on `train`, normals of `val` against all). Mean AUROC over folds and seeds, standard
deviation over folds, and in brackets the 95 % bootstrap interval, by patients, of all held-out scores
together.
"""

_ROBUSTNESS = """
## Fewer leads, noise, other sampling frequencies

What happens to the figures of the shipped models when recordings are changed before they enter the
pipeline; [evaluate.md](evaluate.md) says how. These are development recordings, so that the test split
stays closed: normals of `val`, and abnormal recordings of `train` and `val`, which train nothing. The same
normals set the threshold, so the specificity in the first row is better than it would be elsewhere; read
how it moves. They were measured before leads too poor to be judged were masked: by now most of a recording
with noise of 0 dB is not scored at all.

```
python -m bench.robustness --index data/index.csv
```
"""

_TEST = """
## Test split

The shipped models, with 95 % bootstrap intervals. The split is opened once for a release (`bedside train
--open-test`), and nothing is chosen by it. Its patients are in no other split. Sensitivity and specificity
are at the record threshold, which comes from validation normals. Groups with fewer than five normal or
abnormal recordings are left out.
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
    studies, ablations, changed = (read_results(kind) for kind in ("develop", "ablation", "robustness"))
    default = str(Settings.model_fields["model"].default)
    lines = [_HEAD, _REACH, *reach(studies, bundles, default), _LIMITS]
    lines += [_DEVELOPMENT, *development(studies)]
    if ablations:
        lines += [_ABLATION, *ablation(ablations)]
    lines.append(_TEST)
    for bundle in bundles:
        lines += [f"\n### {bundle.name}\n", *_test(bundle.manifest.metrics.get("test"))]
    lines += [_ROBUSTNESS, *robustness(changed, bundles)]
    return "\n".join([*lines, _ALARMS, *_alarms(bundles), _MAPS, *_maps(bundles), ""])


def model_cards() -> str:
    """Return the text of models/zoo/README.md."""
    bundles = [load_bundle(name) for name in list_bundles()]
    return "\n".join([_CARD_HEAD, *_cards(bundles), ""])


def _test(metrics: dict[str, Any] | None) -> list[str]:
    if not metrics:
        return ["Not opened."]
    rows = []
    for leads, groups in metrics.items():
        for group, found in groups.items():
            for part, figures in ((group, found), (f"{group}, rhythm only", found.get("rhythm_only"))):
                if figures is None or min(figures["n_normal"], figures["n_abnormal"]) < _FEWEST:
                    continue
                rows.append(
                    [
                        LEADS[leads],
                        part,
                        f"{figures['n_normal']} / {figures['n_abnormal']}",
                        area(figures["auroc"], figures["auroc_ci"]),
                        area(figures["auprc"], figures["auprc_ci"]),
                        f"{figures['sensitivity']:.2f}",
                        f"{figures['specificity']:.2f}",
                    ]
                )
    return table(
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
                    area(thresholds.record, thresholds.record_interval),
                    area(thresholds.window, thresholds.window_interval),
                    _false_alarms(thresholds),
                ]
            )
    return table(
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
    return table(["model", "map", "finds an anomaly", "by chance", "gain by deletion", "informative"], rows)


def _cards(bundles: Sequence[Bundle]) -> list[str]:
    rows = []
    for bundle in bundles:
        manifest = bundle.manifest
        test = manifest.metrics.get("test")
        found = test["all"]["all"] if test else {"auroc": None, "auroc_ci": None}
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
                area(found["auroc"], found["auroc_ci"]) if test else "closed",
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
    return table(head, rows)


if __name__ == "__main__":
    main()

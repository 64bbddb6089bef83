"""The page of an evaluation: one file that needs nothing else."""

from __future__ import annotations

from pathlib import Path

from bokeh.embed import components
from bokeh.model import Model
from bokeh.resources import Resources
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from models.session import Session
from training.evaluation.diagnoses import diagnoses, diagnosis_name
from training.evaluation.examples import Example, highest_normals, lowest_abnormals
from training.evaluation.plots import (
    calibration_figure,
    precision_recall_figure,
    roc_figure,
    score_figure,
)
from training.evaluation.results import Evaluation
from training.evaluation.row_plots import MOST_DIAGNOSES, diagnosis_figures, robustness_figures
from training.evaluation.scored import Scored
from training.evaluation.strips import strips_figure
from training.evaluation.summary import shown_path
from training.evaluation.text import change, named_groups, observed, percent, share

_HERE = Path(__file__).parent
DISCLAIMER = "Research software. Not a medical device."
# What a reader may scroll through; the JSON has all.
_MOST_SKIPPED = 200


def write_html(path: Path, evaluation: Evaluation, scored: Scored, session: Session, index: Path) -> None:
    """Write an evaluation as a page of its own, with the recordings that were misjudged most.

    Those are read again and drawn in part: a page holds recordings, and is as confidential as they are.

    Parameters
    ----------
    path : pathlib.Path
    evaluation : Evaluation
    scored : Scored
        Of which it was made.
    session : Session
        That scored them.
    index : pathlib.Path

    Raises
    ------
    OSError
        If it cannot be written.
    """
    operating = session.manifest.thresholds[session.precision]
    figures: dict[str, Model] = {"scores": score_figure(evaluation, scored)}
    if evaluation.missing is None:
        figures["roc"] = roc_figure(evaluation, scored)
        figures["pr"] = precision_recall_figure(evaluation, scored)
    if evaluation.calibration is not None:
        figures["calibration"] = calibration_figure(evaluation, scored, len(operating.quantiles))
    if evaluation.diagnoses:
        figures["diagnosis_auroc"], figures["diagnosis_found"] = diagnosis_figures(evaluation.diagnoses)
    if evaluation.robustness is not None:
        figures["robustness_auroc"], figures["robustness_at"] = robustness_figures(evaluation)
    examples = {}
    for kind, found in (
        ("normals", highest_normals(scored, session)),
        ("abnormals", lowest_abnormals(scored, session)),
    ):
        examples[kind] = [_told(example, scored, session, index) for example in found]
        figures |= {f"{kind} {place}": strips_figure(example) for place, example in enumerate(found)}
    script, divs = components(figures)
    environment = Environment(loader=FileSystemLoader(_HERE / "templates"), autoescape=True, trim_blocks=True)
    environment.filters |= {"share": share, "percent": percent, "observed": observed, "change": change}
    page = environment.get_template("evaluation.html").render(
        e=evaluation,
        groups=named_groups(evaluation),
        disclaimer=DISCLAIMER,
        examples=examples,
        most_diagnoses=MOST_DIAGNOSES,
        most_skipped=_MOST_SKIPPED,
        divs={name: Markup(div) for name, div in divs.items()},
        bokeh_js=Markup(Resources(mode="inline", components=["bokeh"]).render_js()),
        bokeh_script=Markup(script),
    )
    path.write_text(page, encoding="utf-8")


def _told(example: Example, scored: Scored, session: Session, index: Path) -> dict[str, str]:
    entry = example.entry
    operating = session.manifest.thresholds[session.precision]
    named = ", ".join(diagnosis_name(code) for code in sorted(diagnoses(entry.codes)))
    seconds = example.part.end_s - example.part.start_s
    part = (
        f"{example.part.start_s:.0f} to {example.part.end_s:.0f} s"
        if example.part.start_s
        else f"{seconds:.0f} s"
    )
    return {
        "path": shown_path(entry, index),
        "score": f"{example.score:.2f}",
        "percentile": f"{operating.percentile(example.score):.0f}",
        "codes": named,
        "part": part,
    }

"""What the models were meant to reach, and whether they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.markdown import area, table
from bench.studies import Study, undertrained
from models.bundle import Bundle


@dataclass(frozen=True, slots=True)
class Goal:
    """A development figure that was set as a goal, before anything was measured.

    Attributes
    ----------
    what : str
    dataset : str
        As in the results.
    least : float
        AUROC; of a goal about losing leads, the most that may be lost.
    leads : str
        Set of leads, as in the results.
    loss : bool
        Whether it is about what is lost against all leads.
    """

    what: str
    dataset: str
    least: float
    leads: str = "all"
    loss: bool = False


_OF_ALL = (
    Goal("PTB-XL at least 0.86", "ptb-xl", 0.86),
    Goal("leads I, II, V2 lose at most 0.03, PTB-XL", "ptb-xl", 0.03, "I,II,V2", loss=True),
    Goal("lead II alone at least 0.80, PTB-XL", "ptb-xl", 0.80, "II"),
)
_OF_DEFAULT = (
    Goal("PTB-XL at least 0.89", "ptb-xl", 0.89),
    Goal("Chapman-Shaoxing at least 0.76", "chapman-shaoxing", 0.76),
)


def reach(studies: Mapping[str, Study], bundles: Sequence[Bundle], default: str) -> list[str]:
    """Return the table of goals.

    Parameters
    ----------
    studies : mapping of str to dict
        Development figures, by name of the model.
    bundles : sequence of Bundle
        The shipped models.
    default : str
        Name of the one that is used where none is named.

    Returns
    -------
    list of str
        With the figure of the test split beside, where the manifest has one. No goal was set for that: it
        says how far a development figure can be believed.
    """
    rows = []
    for bundle in bundles:
        goals = (*_OF_DEFAULT, *_OF_ALL) if bundle.name == default else _OF_ALL
        study = studies.get(bundle.name)
        for goal in goals:
            test = bundle.manifest.metrics.get("test")
            rows.append([bundle.name, goal.what, *_reached(goal, study), _tested(goal, test)])
    return table(["model", "goal", "development", "reached", "test split"], rows)


def _reached(goal: Goal, study: Study | None) -> tuple[str, str]:
    if study is None:
        return "not measured", "–"
    found = study["figures"][goal.leads][goal.dataset]
    value, ends = found["mean"], found["pooled_ci"]
    if goal.loss:
        lost = study["figures"]["all"][goal.dataset]["mean"] - value
        return f"{lost:.3f}", "yes" if lost <= goal.least else "no"
    short = "no, but inside the interval" if ends[1] >= goal.least else "no"
    reached = "yes" if value >= goal.least else short
    return area(value, ends), reached + (" (undertrained)" if undertrained(study) else "")


def _tested(goal: Goal, test: Mapping[str, Any] | None) -> str:
    if not test:
        return "closed"
    found = test[goal.leads][goal.dataset]
    if goal.loss:
        return f"{test['all'][goal.dataset]['auroc'] - found['auroc']:.3f}"
    return area(found["auroc"], found["auroc_ci"])

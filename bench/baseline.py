"""Bedside against the same work done in a plain loop (`bench.plain_loop`): beds at the same budget.

Both sides are found by the same search, on the same machine, one after the other in the same run, with the
same load generator and subscriber beside them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.capacity import BUDGET_MS, Search, attempt, search_capacity
from bench.machine import machine, versions
from bench.plain_beds import THESIS
from bench.trial import Load, Trial
from models.bundle import load_bundle
from models.manifest import WindowSpec
from training.config import load_config

_RESULTS = Path(__file__).parent / "results"
# The thesis's network takes a tenth of a second and more for a window.
_THESIS_SEARCH = Search(start=1, most=64)

OnAttempt = Callable[[str, dict[str, Any]], None]


async def measure_baseline(
    load: Load,
    *,
    model: str,
    search: Search,
    thesis_search: Search = _THESIS_SEARCH,
    budget_ms: float = BUDGET_MS,
    worker_options: tuple[str, ...] = (),
    on_attempt: OnAttempt | None = None,
) -> dict[str, Any]:
    """Measure the rows: the same work, the same model without signal quality and beats, and the thesis.

    Parameters
    ----------
    load : Load
        Of each attempt, but for the number of beds.
    model : str
        Bundle that Bedside, and the loops of all rows but ``thesis``, score with.
    search, thesis_search : Search
        Where the search for their beds begins and ends, and that of ``thesis``.
    budget_ms : float
    worker_options : tuple of str
        More options of ``bedside worker``.
    on_attempt : callable, optional
        Called with whose attempt it was (``"bedside"``, or the name of a row) and its row of the curve.

    Returns
    -------
    dict
        The fields of ``bedside bench baseline --json``. Where not even one bed was carried,
        ``baseline_beds`` is the share of one bed's windows that were scored in the time in which they came.
    """
    setting = {"machine": machine(), "versions": versions()}
    spec = load_bundle(model).manifest.window
    thesis_spec = load_config(THESIS).window
    options = ("--model", model, *worker_options)
    loop = ("-m", "bench.plain_loop")
    contenders: dict[str, tuple[Search, WindowSpec, dict[str, Any]]] = {
        "bedside": (search, spec, {"worker_options": options}),
        "same": (search, spec, {"scorer": (*loop, "same", "--model", model)}),
        "same, model only": (search, spec, {"scorer": (*loop, "model", "--model", model)}),
        "thesis": (thesis_search, thesis_spec, {"scorer": (*loop, "thesis", "--model", model)}),
    }
    found: dict[str, float] = {}
    curves: dict[str, list[dict[str, Any]]] = {}
    for name, (where, window, ward_options) in contenders.items():

        async def carry(
            beds: int, window: WindowSpec = window, ward_options: dict[str, Any] = ward_options
        ) -> Trial:
            return await attempt(replace(load, beds=beds), window, **ward_options)

        def told(row: dict[str, Any], name: str = name) -> None:
            if on_attempt is not None:
                on_attempt(name, row)

        beds, curve = await search_capacity(carry, where, budget_ms, on_attempt=told)
        found[name] = beds or _share_of_a_bed(curve, window)
        curves[name] = curve
    auroc = development_auroc(model)
    thesis_auroc = development_auroc(THESIS)
    rows = [
        {"name": name, **_against(found, name), "auroc": auroc, "baseline_auroc": of_loop}
        for name, of_loop in (("same", auroc), ("same, model only", auroc), ("thesis", thesis_auroc))
    ]
    return {
        "benchmark": "baseline",
        "rows": rows,
        "budget_ms": budget_ms,
        **load.described(),
        "model": model,
        "worker_options": list(worker_options),
        "curves": curves,
        **setting,
    }


def _against(found: dict[str, float], name: str) -> dict[str, Any]:
    ratio = found["bedside"] / found[name] if found[name] else None
    return {
        "beds": found["bedside"],
        "baseline_beds": found[name],
        "ratio": None if ratio is None else round(ratio, 2),
    }


def _share_of_a_bed(curve: list[dict[str, Any]], spec: WindowSpec) -> float:
    # Of one bed's windows, those that it scores in the time in which they come.
    first = curve[0]
    return (
        round(min(1.0, float(first["findings_per_s"]) * spec.hop / spec.fs), 2) if first["beds"] == 1 else 0.0
    )


def development_auroc(model: str) -> dict[str, Any] | None:
    """Return a model's development figure, None if it has not been measured.

    Parameters
    ----------
    model : str
        As in ``bench/results/develop-MODEL.json``.

    Returns
    -------
    dict or None
        ``mean`` over folds and seeds, ``interval`` (95 %, of the scores of all folds together) and ``split``.
    """
    file = _RESULTS / f"develop-{model}.json"
    if not file.exists():
        return None
    study = json.loads(file.read_text(encoding="utf-8"))
    figures = study["figures"]["all"]["all"]
    return {"mean": figures["mean"], "interval": figures["pooled_ci"], "split": study["split"]}

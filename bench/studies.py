"""What trainings and evaluations left in bench/results, as tables.

develop-NAME.json
    Development figures of a configuration, by ``python -m training.develop``.
ablation-NAME.json
    The same of the default's configuration with something changed.
robustness-NAME.json
    A shipped model on changed recordings, by ``python -m bench.robustness``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.markdown import area, moved, table
from models.bundle import WEIGHTS, Bundle
from training.config import load_config

Study = dict[str, Any]

_RESULTS = Path(__file__).parent / "results"

LEADS = {"all": "12", "I,II,V2": "I, II, V2", "II": "II"}
"""By set of leads in a result: what the tables call it."""

_GROUPS = ("all", "ptb-xl", "chapman-shaoxing", "georgia")
_GROUP_NAMES = ("all", "PTB-XL", "Chapman-Shaoxing", "Georgia")
# What of a configuration does not change its figures.
_NO_MATTER = ("name", "description", "alarm", "max_batch", "calibration")
# With fewer of these than its configuration says a model has not learned what it could.
_EFFORT = {"fit.epochs": "epochs", "fit.crops_per_record": "windows of each recording in an epoch"}
_HOW = {"folds": "{folds} folds", "fixed": "fixed split", "hospitals": "{folds} hospitals, each unseen"}


def read_results(kind: str) -> dict[str, Study]:
    """Return the results of a kind (``"develop"``, ``"ablation"``, ``"robustness"``) by name."""
    return {
        path.stem.removeprefix(f"{kind}-"): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(_RESULTS.glob(f"{kind}-*.json"))
    }


def changed_keys(study: Study) -> dict[str, tuple[Any, Any]]:
    """Return in what a study differs from the configuration of the same name.

    Parameters
    ----------
    study : dict
        Of a develop or ablation result.

    Returns
    -------
    dict of str to (object, object)
        By key: what the configuration says, and what was run.
    """
    meant = _flat(load_config(study["config"]["name"]).model_dump(mode="json"))
    ran = _flat(study["config"])
    return {
        key: (meant[key], value)
        for key, value in ran.items()
        if key in meant and meant[key] != value and key.split(".")[0] not in _NO_MATTER
    }


def undertrained(study: Study) -> list[str]:
    """Return in what a study was trained less than its configuration says, in words; empty if in nothing."""
    return [
        f"{ran} of {meant} {_EFFORT[key]}"
        for key, (meant, ran) in changed_keys(study).items()
        if _less(key, meant, ran)
    ]


def _less(key: str, meant: Any, ran: Any) -> bool:
    return key in _EFFORT and bool(ran < meant)


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def command(study: Study, file: str) -> str:
    """Return the command that measures a study and writes `file` in bench/results."""
    split = "" if study["split"] == "folds" else f" --split {study['split']}"
    settings = "".join(f" --set {key}={value}" for key, (_, value) in changed_keys(study).items())
    return (
        f"python -m training.develop --config {study['config']['name']} --index data/index.csv"
        f"{split} --seeds {study['seeds']}{settings} --json bench/results/{file}"
    )


def development(studies: Mapping[str, Study]) -> list[str]:
    """Return the table of development figures, and a line about each study."""
    if not studies:
        return ["None have been measured."]
    rows = []
    for name, study in studies.items():
        mark = " (undertrained)" if undertrained(study) else ""
        for leads, groups in study["figures"].items():
            rows.append([name + mark, LEADS[leads], *_areas(groups, _GROUPS), _rhythm(groups)])
    lines = table(["model", "leads", *_GROUP_NAMES, "rhythm only, all"], rows)
    for name, study in studies.items():
        counts, code = study["figures"]["all"]["all"], study["code"]
        how = _HOW[study["split"]].format(folds=study["folds"])
        line = (
            f"\n`{name}`: {how}, {study['seeds']} {'seed' if study['seeds'] == 1 else 'seeds'},"
            f" {counts['n_normal']} normal and {counts['n_abnormal']} abnormal recordings;"
            f" torch {code['torch']}, {code['device']}."
        )
        if less := undertrained(study):
            line += f" **Undertrained**: {', '.join(less)}."
        changed = changed_keys(study).items()
        if other := [f"`{key}={ran}`" for key, (meant, ran) in changed if not _less(key, meant, ran)]:
            line += f" Other than configured: {', '.join(other)}."
        lines.append(line)
    return lines


def ablation(studies: Mapping[str, Study]) -> list[str]:
    """Return the table of what was changed in the default's configuration, and the commands."""
    rows = []
    for study in sorted(studies.values(), key=lambda study: (study["split"], len(changed_keys(study)))):
        score = study["config"]["score"]
        weight = score["distance_weight"] or 0
        how = _HOW[study["split"]].format(folds=study["folds"])
        groups = study["figures"]["all"]
        rows.append(
            [
                score["kind"],
                f"{weight:g}",
                how,
                *_areas(groups, _GROUPS[:3]),
                _rhythm(groups),
                str(study["seeds"]),
            ]
        )
    head = [
        "error",
        "weight of the feature distance",
        "split",
        *_GROUP_NAMES[:3],
        "rhythm only, all",
        "seeds",
    ]
    commands = [command(study, f"ablation-{name}.json") for name, study in studies.items()]
    return [*table(head, rows), "", "```", *commands, "```"]


def robustness(results: Mapping[str, Study], bundles: Sequence[Bundle]) -> list[str]:
    """Return a table for each shipped model of what changes of the recordings do to its figures."""
    lines: list[str] = []
    for bundle in bundles:
        result = results.get(bundle.name)
        lines.append(f"\n### {bundle.name}, changed recordings\n")
        if result is None:
            lines.append("Not measured.")
            continue
        if result["weights_sha256"] != bundle.manifest.sha256[WEIGHTS]:
            raise ValueError(f"robustness-{bundle.name}.json is of another model: measure it again")
        groups = result["groups"]
        everything = groups["all"]
        rows = []
        for place, row in enumerate(everything["robustness"]):
            others = [
                groups[name]["robustness"][place]["auroc_delta"] if name in groups else None
                for name in _GROUPS[1:3]
            ]
            rows.append(
                [
                    row["name"],
                    area(row["auroc"], row["auroc_ci"]),
                    moved(row["auroc_delta"], row["auroc_delta_ci"]),
                    *(moved(delta) for delta in others),
                    # A change that leaves no signal good enough to be scored leaves nothing to be measured.
                    *("–" if row[of] is None else f"{row[of]:.2f}" for of in ("sensitivity", "specificity")),
                ]
            )
        head = ["changed", "AUROC", "change", *(f"change, {name}" for name in _GROUP_NAMES[1:3])]
        lines += table([*head, "sensitivity", "specificity"], rows)
        counts = f"{everything['n_normal']} normal and {everything['n_abnormal']} abnormal recordings"
        runtime, cpu = result["versions"]["onnxruntime"], result["machine"]["cpu"]
        lines.append(f"\n{counts}; ONNX Runtime {runtime}, {result['cpu_s']} s of {cpu}.")
    return lines


def _areas(groups: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    cells = []
    for name in names:
        found = groups[name]
        spread = f" ± {found['sd_folds']:.3f}" if found["sd_folds"] is not None else ""
        ends = found["pooled_ci"]
        pooled = f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends else ""
        cells.append("–" if found["mean"] is None else f"{found['mean']:.3f}{spread}{pooled}")
    return cells


def _rhythm(groups: Mapping[str, Any]) -> str:
    found = groups["all"].get("rhythm_only")
    return f"{found['mean']:.3f}" if found else "–"

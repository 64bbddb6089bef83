"""The command ``calibrate``."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from stream.console import RefusalError, json_option, model_option, progress_bar, write_json, writing
from stream.settings import Settings

if TYPE_CHECKING:
    from models.manifest import FalseAlarmRate
    from training.calibration.recalibrate import Calibration, Comparison

# Of 60 normals three lie above the 95th percentile.
_FEW = 60
_SUFFIX = "-calibrated"
# How many recordings that could not be used are named.
_NAMED = 3


@click.command("calibrate")
@model_option
@click.option(
    "--index",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="CSV of your recordings: path, label (0: normal) and optionally split, dataset, patient_id.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for the new bundle; it must be empty or not there yet.",
)
@click.option("--name", metavar="NAME", help="Of the new bundle. [default: the model's, -calibrated]")
@click.option(
    "--statistics",
    type=click.Choice(["keep", "refit"]),
    default="keep",
    show_default=True,
    help="Whether to measure anew what an average score is.",
)
@click.option(
    "--backend", default="onnxruntime", show_default=True, metavar="NAME", help="What runs the model."
)
@json_option
def calibrate(
    model: str | None,
    index: Path,
    out: Path,
    name: str | None,
    statistics: Literal["keep", "refit"],
    backend: str,
    json_path: str | None,
) -> None:
    """Set a model's thresholds on your own normal recordings.

    Takes the rows labelled 0: of split `val` if the index has splits, else all. The model stays as it is; a
    new bundle gets its weights and the new thresholds. docs/thresholds.md says how they are computed.

    \b
    bedside calibrate --index ward.csv --out runs/ward
    bedside calibrate --model runs/mine --index ward.csv --out runs/ward --name ward-7
    bedside analyze RECORD --model runs/ward
    """
    from models.bundle import load_bundle, write_bundle
    from training.calibration.recalibrate import FEWEST, choose, recalibrate
    from training.recordings import IndexFileError, read_index

    bundle = load_bundle(model or Settings().model)
    _check_folder(out)
    try:
        chosen = choose(read_index(index))
    except IndexFileError as error:
        raise RefusalError(str(error)) from error
    normals = len(chosen.normals)
    where = f" in split {chosen.split}" if chosen.split else ""
    if normals < FEWEST:
        raise RefusalError(
            f"{index}: {normals} normal recordings (label 0){where}; at least {FEWEST} are needed"
        )
    named = name or bundle.name.removesuffix(_SUFFIX) + _SUFFIX
    try:
        with progress_bar(f"calibrating {bundle.name}", 1.0) as done:
            calibration = recalibrate(
                bundle,
                chosen,
                index,
                name=named,
                created=date.today().isoformat(),
                statistics=statistics,
                backend=backend,
                on_done=done,
            )
    except ValueError as error:
        raise RefusalError(f"{index}: {error}") from error
    with writing(str(out)):
        written = write_bundle(out, calibration.manifest, calibration.files)
    if json_path:
        write_json(_as_json(calibration, written.path), json_path)
    if json_path != "-":
        click.echo(f"{written.path}\n{named}: from {index.name}{where}")
        for precision, compared in calibration.comparisons.items():
            click.echo("\n".join(_described(precision, compared)))
    _warn(calibration)


def _check_folder(out: Path) -> None:
    # What cannot be written is said before the work, not after it.
    if out.is_dir() and any(out.iterdir()):
        raise RefusalError(f"{out} is not empty: name a new folder")
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise RefusalError(f"cannot write {out}: {there} is no folder that can be written to")


def _described(precision: str, compared: Comparison) -> list[str]:
    was, now = compared.was, compared.now
    rescaled = "" if compared.above else ", scores on another scale than before"
    lines = [
        f"  {precision}: {now.records} normals{rescaled}",
        _row("", "was", "now", "95 % interval"),
        _row("recording abnormal above", f"{was.record:.2f}", f"{now.record:.2f}", now.record_interval),
    ]
    if compared.above is not None:
        lines.append(_row("  share of your normals", *(f"{share:.1%}" for share in compared.above)))
    lines.append(_row("window counts above", f"{was.window:.2f}", f"{now.window:.2f}", now.window_interval))
    if compared.rate is not None:
        lines.append(_row("  false alarms per bed-hour", *(f"{rate.rate:.2f}" for rate in compared.rate)))
    for source, rate in now.false_alarms_per_bed_hour.items():
        lines.append(f"        {source + ':':12} {_rate(rate)}")
    others = {name: level for name, level in now.record_methods.items() if name != "p95"}
    if others:
        levels = ", ".join(f"{name} {level:.2f}" for name, level in others.items())
        lines.append(f"    other thresholds for a recording, not used: {levels}")
    return lines


def _row(what: str, was: str, now: str, interval: tuple[float, float] | str | None = None) -> str:
    if isinstance(interval, tuple):
        interval = f"[{interval[0]:.2f}, {interval[1]:.2f}]"
    return f"    {what:26}{was:>8}{now:>8}   {interval or ''}".rstrip()


def _rate(rate: FalseAlarmRate) -> str:
    low, high = rate.interval
    return (
        f"{rate.alarms} in {rate.hours:.1f} h of {rate.patients} patients,"
        f" {rate.rate:.2f} per bed-hour [{low:.2f}, {high:.2f}]"
    )


def _warn(calibration: Calibration) -> None:
    for precision in calibration.precisions_left_out:
        click.echo(f"left out: precision {precision}: no backend here runs it", err=True)
    left_out = calibration.left_out
    for reason in left_out[:_NAMED]:
        click.echo(f"left out: {reason}", err=True)
    if len(left_out) > _NAMED:
        click.echo(f"left out: {len(left_out) - _NAMED} more recordings", err=True)
    now = next(iter(calibration.comparisons.values())).now
    normals = now.records or 0
    if normals < _FEW:
        above = normals - 1 - int(0.95 * (normals - 1))
        click.echo(
            f"warning: {normals} normals: the record threshold rests on the highest {above} of them;"
            " its interval has no upper end that is sure",
            err=True,
        )
    if now.tail is None:
        click.echo("warning: too few stretches to fit a tail: the alarm threshold is only counted", err=True)


def _as_json(calibration: Calibration, path: Path) -> dict[str, Any]:
    return {
        "name": calibration.manifest.name,
        "path": str(path),
        "data": calibration.manifest.data["calibration"],
        "thresholds": {
            precision: {
                "was": compared.was.model_dump(mode="json"),
                "now": compared.now.model_dump(mode="json"),
                "normals_above": compared.above,
                "false_alarms_per_bed_hour": compared.rate
                and [rate.model_dump(mode="json") for rate in compared.rate],
            }
            for precision, compared in calibration.comparisons.items()
        },
        "left_out": list(calibration.left_out),
    }

"""The command ``models``."""

from __future__ import annotations

from typing import Any

import click

from models.bundle import Bundle, list_bundles, load_bundle
from models.manifest import MapCheck, Thresholds

# Splits of which a manifest may have figures, and how far they can be believed.
_FIGURES = {
    "val": "split val, which chose the epoch and the threshold",
    "test": "split test, which chose nothing",
}


@click.group()
def models() -> None:
    """List, describe and check the models that can be used.

    \b
    bedside models list
    bedside models info cae-100hz
    bedside models verify runs/my-model
    bedside models backends
    """


@models.command("list")
def list_command() -> None:
    """List the models that come with the package."""
    for name in list_bundles():
        manifest = load_bundle(name).manifest
        click.echo(f"{name:<16} {manifest.description}")


@models.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print the whole manifest.")
def info(name: str, as_json: bool) -> None:
    """Describe a model: what it sees, where its thresholds lie, what was measured."""
    bundle = load_bundle(name)
    if as_json:
        click.echo(bundle.manifest.model_dump_json())
        return
    for line in describe(bundle):
        click.echo(line)


@models.command()
@click.argument("name")
@click.option("--backend", default="onnxruntime", show_default=True)
def verify(name: str, backend: str) -> None:
    """Check every file's hash, and that the model computes what was trained, in each of its precisions.

    A precision that the backend does not run is said to be left out. With the backend tensorrt and no GPU,
    engines are built and not executed.

    \b
    bedside models verify cae-100hz
    bedside models verify runs/my-model --backend tensorrt
    """
    from models.backends.status import verified

    bundle = load_bundle(name)
    for precision in bundle.manifest.thresholds:
        click.echo(f"{bundle.name}: {backend} {precision}: {verified(bundle, backend, precision)}")


@models.command("backends")
def backends_command() -> None:
    """List what can run models: what is installed, on which device, in which precisions.

    \b
    bedside models backends
    bedside models verify cae-100hz --backend openvino
    """
    from models.backends.status import backend_lines

    click.echo("\n".join(backend_lines()))


def describe(bundle: Bundle) -> list[str]:
    """Return what a person should know of a model, as lines."""
    manifest = bundle.manifest
    window, alarm = manifest.window, manifest.alarm
    lines = [
        f"{manifest.name}: {manifest.description}",
        f"  {manifest.architecture}, {manifest.parameters} parameters, trained {manifest.created}",
        f"  window {window.seconds:g} s at {window.fs:g} Hz, every {window.hop / window.fs:g} s;"
        f" leads {' '.join(manifest.leads)}",
        f"  an alarm takes {alarm.k} of {alarm.n} windows over the threshold and ends with {alarm.clear}",
    ]
    if calibration := manifest.data.get("calibration"):
        lines.append(
            f"  thresholds of {calibration['date']}, from a user's own recordings;"
            f" weights of {calibration['model']}"
        )
    for precision, thresholds in manifest.thresholds.items():
        lines += _operating_points(precision, thresholds)
    lines += [_map_line(name, check) for name, check in manifest.explanations.items()]
    for split, meaning in _FIGURES.items():
        if figures := _figures(manifest.metrics.get(split, {})):
            lines += [f"  figures of {meaning} (95 % interval of the AUROC):", *figures]
    return lines


def _figures(found: dict[str, Any]) -> list[str]:
    lines = []
    for leads, groups in found.items():
        for group, figures in groups.items():
            if figures["auroc"] is None:
                continue
            low, high = figures["auroc_ci"]
            lines.append(
                f"    {leads:8} {group:18} AUROC {figures['auroc']:.3f} [{low:.2f}, {high:.2f}]"
                f"  sensitivity {figures['sensitivity']:.2f}  specificity {figures['specificity']:.2f}"
                f"  ({figures['n_normal']} normal, {figures['n_abnormal']} abnormal)"
            )
    return lines


def _operating_points(precision: str, thresholds: Thresholds) -> list[str]:
    normals = "" if thresholds.records is None else f", from {thresholds.records} validation normals"
    record, window = (
        f"{level:.2f}" + ("" if ends is None else f" [{ends[0]:.2f}, {ends[1]:.2f}]")
        for level, ends in (
            (thresholds.record, thresholds.record_interval),
            (thresholds.window, thresholds.window_interval),
        )
    )
    lines = [f"  {precision}: screening threshold {record}, of a recording{normals}"]
    others = [f"{name} {level:.2f}" for name, level in thresholds.record_methods.items() if name != "p95"]
    if others:
        lines.append(f"    other ways to choose it: {', '.join(others)}")
    lines.append(f"  {precision}: alarm threshold {window}, of a window")
    for source, found in thresholds.false_alarms_per_bed_hour.items():
        low, high = found.interval
        lines.append(
            f"    false alarms, {source}: {found.alarms} in {found.hours:.1f} h of {found.patients} patients,"
            f" {found.rate:.2f} per bed-hour [{low:.2f}, {high:.2f}]"
        )
    return lines


def _map_line(name: str, check: MapCheck) -> str:
    return (
        f"  map {name}: {'informative' if check.informative else 'not informative, so not shown'};"
        f" finds {check.localisation:.0%} of inserted anomalies, by chance {check.chance:.0%}"
    )

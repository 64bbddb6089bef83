"""The command ``models``."""

from __future__ import annotations

import click

from models.backends import open_session
from models.bundle import Bundle, list_bundles, load_bundle


@click.group()
def models() -> None:
    """List, describe and check the models that can be used.

    \b
    bedside models list
    bedside models info cae-100hz
    bedside models verify runs/my-model
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
    """Check every file's hash, and that the model computes what was trained."""
    bundle = load_bundle(name)
    for precision in bundle.manifest.thresholds:
        open_session(bundle, backend=backend, precision=precision)
        click.echo(f"{bundle.name}: {backend} {precision}: files and golden outputs agree")


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
    for precision, thresholds in manifest.thresholds.items():
        lines.append(
            f"  {precision}: threshold {thresholds.record:.2f} for a recording,"
            f" {thresholds.window:.2f} for a window"
        )
    lines.append("  development figures, recordings of split test (95 % interval of the AUROC):")
    for leads, groups in manifest.metrics["test"].items():
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

"""The commands ``demo`` and ``bench``."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Coroutine
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stream.console import (
    RefusalError,
    check_writable,
    fs_option,
    json_option,
    leads_option,
    model_option,
    progress_bar,
    run_until_stopped,
    write_json,
    writing,
)
from stream.settings import Settings
from stream.subscription.commands import event_line

if TYPE_CHECKING:
    from bench.trial import Load

# What the extra `bench` installs, and the module that shows it.
_NEEDS = {"hdrhistogram": "hdrh", "psutil": "psutil"}


@click.command("demo")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--beds", type=click.IntRange(1, 1000), help="How many. [default: 4, or one for each PATH]")
@click.option("--seconds", type=click.FloatRange(min=1), help="Stop after so long and sum up.")
@click.option(
    "--port", type=click.IntRange(1, 65535), default=5006, show_default=True, help="Of the live page."
)
@click.option("--record", "recordings", metavar="DIR", help="Record every bed into this folder.")
@fs_option
@leads_option
@json_option
def demo(
    paths: tuple[str, ...],
    beds: int | None,
    seconds: float | None,
    port: int,
    recordings: str | None,
    fs: float | None,
    leads: tuple[str, ...] | None,
    json_path: str | None,
) -> None:
    """Run everything on this machine: server, feeds, worker and live page.

    Bed 1 is a real recording, beds 2 to 4 are simulated, and bed 4 falls into ventricular tachycardia after
    20 seconds. With PATHs, the beds are your recordings, looped.

    \b
    bedside demo
    bedside demo my/records/a01 my/records/a02
    bedside demo --beds 16 --seconds 60 --json -
    bedside demo --record recordings
    """
    from bench.demo import DemoError, demo_feeds, run_demo

    feeds = demo_feeds(paths, beds, fs=fs, leads=leads)

    async def run(stop: asyncio.Event) -> None:
        summary = await run_demo(
            feeds,
            directory=Settings().runtime_dir,
            port=port,
            seconds=seconds,
            model=Settings().model,
            stop=stop,
            recordings=None if recordings is None else Path(recordings),
            say=lambda text: click.echo(text, err=json_path == "-"),
            on_alarm=lambda event: click.echo(event_line(event), err=json_path == "-"),
        )
        if json_path:
            write_json(summary, json_path)
        elif seconds is not None:
            click.echo(json.dumps(summary))

    try:
        run_until_stopped(run)
    except DemoError as error:
        raise RefusalError(str(error)) from error


_ill_option = click.option(
    "--ill-every",
    type=float,
    metavar="SECONDS",
    help="How often each simulated patient falls ill, 36 at least. [default: 300; latency: 36]",
)


def _load_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(
        (
            model_option,
            click.option("--backend", metavar="NAME", help="Of `bedside worker`. [default: its own]"),
            click.option("--precision", metavar="P", help="Of `bedside worker`. [default: its own]"),
            click.option("--hop", "hop_s", type=float, metavar="SECONDS", help="Of `bedside worker`."),
            click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True),
            click.option(
                "--data",
                "paths",
                multiple=True,
                metavar="PATH",
                help="Recordings to play, looped, instead of simulated patients; may be repeated.",
            ),
            _ill_option,
        )
    ):
        command = option(command)
    return command


def _report_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(
        (
            click.option("--seed", default=0, show_default=True, help="Of the simulated patients."),
            click.option("--quick", is_flag=True, help="Small and short: under a minute, for a look."),
            json_option,
            click.option("--html", metavar="FILE", help="Write a page of its own, with plots."),
        )
    ):
        command = option(command)
    return command


@click.group("bench")
def bench() -> None:
    """Measure this machine: how late, how many beds, on which backend, against what.

    Each starts a deployment of its own and touches no other. Needs the extra `bench`; figures mean something
    on a machine that does nothing else.

    \b
    bedside bench latency --json latency.json --html latency.html
    bedside bench capacity --budget 300
    bedside bench backends --quick
    """


@bench.command("latency")
@click.option("--beds", type=click.IntRange(1, 10_000), help="How many. [default: 64]")
@click.option("--seconds", type=click.FloatRange(min=5), help="To measure, after a warm-up. [default: 600]")
@click.option("--soak", type=click.FloatRange(min=1), metavar="MINUTES", help="Measure for so long instead.")
@click.option(
    "--speed",
    type=click.FloatRange(min=1),
    default=1.0,
    show_default=True,
    help="Seconds of signal in a second: hours pass in minutes.",
)
@_load_options
@_report_options
def latency(
    beds: int | None,
    seconds: float | None,
    soak: float | None,
    speed: float,
    model: str | None,
    backend: str | None,
    precision: str | None,
    hop_s: float | None,
    workers: int,
    paths: tuple[str, ...],
    ill_every: float | None,
    seed: int,
    quick: bool,
    json_path: str | None,
    html: str | None,
) -> None:
    """Measure how late findings and alarms arrive, stage by stage, in real time.

    Every simulated patient falls ill as often as can be, once in 36 s, so that 64 beds raise more than 1000
    alarms in ten minutes. A latency counts from the time at which its chunk was due, however late it was
    sent.

    \b
    bedside bench latency
    bedside bench latency --beds 16 --seconds 60 --data mitdb/100 --data mitdb/207
    bedside bench latency --soak 240 --json soak.json
    bedside bench latency --beds 16 --speed 30 --soak 48 --workers 2 --data mitdb/100 --json day.json
    """
    _check(json_path, html)
    from bench.latency import latency_text, measure_latency
    from bench.trial import warm_up_s
    from models.bundle import load_bundle

    model = model or Settings().model
    before_s = warm_up_s(load_bundle(model).manifest.window)
    beds = beds or (8 if quick else 64)
    seconds = soak * 60 if soak else seconds or (10.0 if quick else 600.0)
    load = replace(_load(beds, seconds, seed, ill_every, paths, hop_s, storm=True), speed=speed)
    with progress_bar(f"{beds} beds", before_s + seconds) as sent:
        result = _run(
            measure_latency(
                load,
                model=model,
                worker_options=_worker_options(backend, precision, hop_s),
                workers=workers,
                on_progress=sent,
            )
        )
    _tell(result, latency_text(result), json_path, html)


@bench.command("capacity")
@click.option("--budget", type=click.FloatRange(min=1), default=300.0, show_default=True, help="p99, ms.")
@click.option("--start", type=click.IntRange(1), help="Beds of the first attempt. [default: 64]")
@click.option("--most", type=click.IntRange(1), help="Beds beyond which nobody looks. [default: 4096]")
@click.option("--seconds", type=click.FloatRange(min=2), help="Of each attempt. [default: 30]")
@click.option("--pin", "pinned", is_flag=True, help="Keep each worker to one core, in turn.")
@_load_options
@_report_options
def capacity(
    budget: float,
    start: int | None,
    most: int | None,
    seconds: float | None,
    pinned: bool,
    model: str | None,
    backend: str | None,
    precision: str | None,
    hop_s: float | None,
    workers: int,
    paths: tuple[str, ...],
    ill_every: float | None,
    seed: int,
    quick: bool,
    json_path: str | None,
    html: str | None,
) -> None:
    """Find the largest number of beds that is carried within a budget, with nothing lost.

    Doubles the beds until they are too many, then bisects. Carried: the 99th percentile from a chunk being
    due to its finding having arrived is within the budget, every window has a score, no technical alarm, and
    the worker leaves nothing out. Each simulated patient falls ill once in five minutes, one bed after the
    other, which raises several times as many alarms as intensive care does.

    \b
    bedside bench capacity
    bedside bench capacity --model vae-bilstm-mha-100hz --start 16 --html capacity.html
    bedside bench capacity --workers 2 --pin
    """
    _check(json_path, html)
    if pinned and not hasattr(os, "sched_setaffinity"):
        raise RefusalError("--pin: only Linux keeps a process to a core")
    from bench.capacity import MOST, Search, curve_row_text, measure_capacity
    from bench.tables import illness

    search = Search(start or (8 if quick else 64), most or (16 if quick else MOST))
    seconds = seconds or (3.0 if quick else 30.0)
    load = _load(search.start, seconds, seed, ill_every, paths, hop_s)
    result = _run(
        measure_capacity(
            load,
            model=model or Settings().model,
            search=search,
            budget_ms=budget,
            worker_options=_worker_options(backend, precision, hop_s),
            workers=workers,
            pinned=pinned,
            on_attempt=lambda row: click.echo(curve_row_text(row), err=json_path == "-"),
        )
    )
    more = "" if result["limit_reached"] else " (no more were tried)"
    text = f"capacity: {result['beds']} beds within {budget:g} ms{more}; {illness(result)}"
    _tell(result, text, json_path, html)


@bench.command("backends")
@click.option("--model", "models", multiple=True, metavar="NAME", help="Only this bundle; may be repeated.")
@click.option("--batch", "batches", multiple=True, type=click.IntRange(1), help="Windows; may be repeated.")
@click.option("--seconds", type=click.FloatRange(min=0.1), help="For each row. [default: 2]")
@_report_options
def backends(
    models: tuple[str, ...],
    batches: tuple[int, ...],
    seconds: float | None,
    seed: int,
    quick: bool,
    json_path: str | None,
    html: str | None,
) -> None:
    """Measure every backend with every model, precision and batch, one thread, a process each.

    The error is that of scores against the float32 file in ONNX Runtime. The thesis-size network, with random
    weights, shows how close a backend comes to the machine's speed in multiplying matrices.

    \b
    bedside bench backends --json backends.json --html backends.html
    bedside bench backends --model cae-100hz --batch 1 --batch 512
    """
    _check(json_path, html)
    from bench.backends import ProbeError, measure_backends, row_text, skipped_text
    from models.bundle import load_bundle

    chosen = models or ((Settings().model,) if quick else ())
    for name in chosen:
        load_bundle(name)
    try:
        result = measure_backends(
            models=chosen,
            batches=batches or ((1, 8) if quick else ()),
            seconds=seconds or (0.3 if quick else 2.0),
            thesis=not quick,
            seed=seed,
            on_row=lambda row: click.echo(row_text(row), err=json_path == "-"),
        )
    except ProbeError as error:
        raise RefusalError(str(error)) from error
    _tell(result, skipped_text(result), json_path, html)


@bench.command("baseline")
@click.option("--budget", type=click.FloatRange(min=1), default=300.0, show_default=True, help="p99, ms.")
@click.option("--seconds", type=click.FloatRange(min=2), help="Of each attempt. [default: 30]")
@model_option
@click.option("--backend", metavar="NAME", help="Of `bedside worker`. [default: its own]")
@_ill_option
@_report_options
def baseline(
    budget: float,
    seconds: float | None,
    model: str | None,
    backend: str | None,
    ill_every: float | None,
    seed: int,
    quick: bool,
    json_path: str | None,
    html: str | None,
) -> None:
    """Compare with a plain loop: the same work, the same model alone, the reference thesis's. Needs torch.

    In the second row the loop neither rates signals nor finds beats; in the third it has the model and the
    scoring path of the thesis.

    \b
    bedside bench baseline --json baseline.json
    """
    _check(json_path, html)
    if find_spec("torch") is None:
        raise RefusalError("the plain loops run PyTorch: pip install 'bedside[torch]'")
    from bench.baseline import measure_baseline
    from bench.capacity import MOST, Search, curve_row_text
    from bench.tables import illness

    search, seconds = Search(8, 8) if quick else Search(64, MOST), seconds or (2.0 if quick else 30.0)
    result = _run(
        measure_baseline(
            _load(search.start, seconds, seed, ill_every),
            model=model or Settings().model,
            search=search,
            thesis_search=Search(1, 1 if quick else 64),
            budget_ms=budget,
            worker_options=_worker_options(backend, None, None),
            on_attempt=lambda who, row: click.echo(f"{who:16} {curve_row_text(row)}", err=json_path == "-"),
        )
    )
    lines = [
        f"{row['name']:16} Bedside {row['beds']:g} beds, plain loop {row['baseline_beds']:g}:"
        f" {row['ratio']} times"
        for row in result["rows"]
    ]
    _tell(result, "\n".join([*lines, illness(result)]), json_path, html)


def _check(json_path: str | None, html: str | None) -> None:
    # Before the work, not after it.
    for file in (json_path, html):
        if file and file != "-":
            check_writable(file)
    lacking = [name for name, module in _NEEDS.items() if find_spec(module) is None]
    if lacking:
        raise RefusalError(f"a benchmark needs {' and '.join(lacking)}: pip install 'bedside[bench]'")


def _load(
    beds: int,
    seconds: float,
    seed: int,
    ill_every: float | None,
    paths: tuple[str, ...] = (),
    hop_s: float | None = None,
    *,
    storm: bool = False,
) -> Load:
    from bench.signals import EPISODE_S, STORM_S, WARD_S
    from bench.trial import Load

    if ill_every is None:
        ill_every = STORM_S if storm else WARD_S
    elif paths:
        raise click.UsageError("--ill-every is for simulated patients; --data plays recordings as they are")
    if ill_every < EPISODE_S:
        raise click.UsageError(f"--ill-every: {EPISODE_S} at least, as long as an episode lasts")
    return Load(beds, seconds, paths, seed, ill_every, hop_s)


def _worker_options(backend: str | None, precision: str | None, hop_s: float | None) -> tuple[str, ...]:
    chosen = {
        "--backend": backend,
        "--precision": precision,
        "--hop": None if hop_s is None else f"{hop_s:g}",
    }
    return tuple(part for option, value in chosen.items() if value for part in (option, value))


def _run(measuring: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    from bench.ward import WardError

    try:
        return asyncio.run(measuring)
    except WardError as error:
        raise RefusalError(str(error)) from error


def _tell(result: dict[str, Any], text: str, json_path: str | None, html: str | None) -> None:
    if json_path != "-":
        click.echo(text)
    if html:
        from bench.report import write_report

        with writing(html):
            write_report(Path(html), result)
    if json_path:
        write_json(json.dumps(result, indent=1), json_path)

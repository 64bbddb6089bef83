"""Bedside: a streaming monitoring engine for bedside ECG feeds.

The command line (``bedside --help``) and the few functions that a program needs: `analyze` a recording,
subscribe to `alarms`, `load_model`. Everything is imported where it is used, so that ``--help`` and the light
commands start at once.

Research software, not a medical device; never the only source of alarms.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stream.console import fs_option, json_option, model_option, progress_bar, write_json
from stream.settings import Settings

if TYPE_CHECKING:
    from ingest.source import Recording
    from models.session import Session
    from stream.contract import AlarmEvent
    from stream.offline import Analysis

__all__ = ["alarms", "analyze", "load_model", "main"]


# ---- for programs ----------------------------------------------------------------------------------------


def load_model(name: str = "cae-100hz", *, backend: str = "onnxruntime", precision: str = "fp32") -> Session:
    """Load a model bundle and prove that it computes what was trained.

    Parameters
    ----------
    name : str
        A shipped bundle or the path of a bundle folder.
    backend, precision : str

    Returns
    -------
    models.session.Session

    Raises
    ------
    models.bundle.BundleError
        If there is no such bundle, or it is refused.
    """
    from models.backends import open_session
    from models.bundle import load_bundle

    return open_session(load_bundle(name), backend=backend, precision=precision)


def analyze(path: str | Path, *, model: str = "cae-100hz", fs: float | None = None) -> Analysis:
    """Run one recording through the pipeline that also runs live.

    Parameters
    ----------
    path : str or Path
        A WFDB record, a ``.npy`` array (with `fs`) or a DICOM waveform.
    model : str
    fs : float, optional
        Sampling frequency, Hz, of a file that does not state it.

    Returns
    -------
    stream.offline.Analysis

    Examples
    --------
    >>> bedside.analyze("records500/00000/00001_hr").record_score  # doctest: +SKIP
    """
    from ingest.recordings import open_recording

    return _analyse(open_recording(path, fs=fs), load_model(model))


async def alarms(
    url: str, *, bed: str | None = None, since_ms: int | None = None, follow: bool = True
) -> AsyncIterator[AlarmEvent]:
    """Subscribe to the alarms of a running deployment; see `stream.subscribe.alarms`.

    Parameters
    ----------
    url : str
        Its Redis server.

    Examples
    --------
    >>> async for event in bedside.alarms("redis://localhost"):  # doctest: +SKIP
    ...     print(event.bed, event.presence, event.message)
    """
    from stream.bus import Bus
    from stream.subscribe import alarms as subscribe

    async with await Bus.connect(url) as bus:
        async for event in subscribe(bus, bed=bed, since_ms=since_ms, follow=follow):
            yield event


# ---- the command line ------------------------------------------------------------------------------------

# Where each command lives: with the package whose work it does. In the order in which people meet them.
_COMMANDS = {
    "demo": "bench.commands:demo",
    "analyze": "bedside:_analyze_command",
    "replay": "ingest.commands:replay",
    "ingest": "ingest.commands:ingest",
    "worker": "stream.commands:worker",
    "dashboard": "monitor.commands:dashboard",
    "alerts": "stream.commands:alerts",
    "models": "models.commands:models",
    "train": "training.commands:train",
}


class _Commands(click.Group):
    # Imports a command when it is asked for, so that the light ones start at once.
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="bedside")
@click.option("-v", "--verbose", is_flag=True, help="Say more about what happens (on standard error).")
def cli(verbose: bool) -> None:
    """Monitor bedside ECG feeds as they stream.

    Research software, not a medical device; never the only source of alarms.

    \b
    bedside demo                         four beds on this machine, with a live page
    bedside analyze RECORD               one recording through the same pipeline
    bedside worker & bedside dashboard & bedside replay RECORD --bed icu-1
    bedside alerts --follow --json       every alarm transition, one JSON object a line
    """
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )


@click.command("analyze")
@click.argument("path")
@model_option
@fs_option
@json_option
def _analyze_command(path: str, model: str | None, fs: float | None, json_path: str | None) -> None:
    """Analyse one recording with the pipeline that also runs live.

    PATH is a WFDB record (with or without extension), a .npy array or a DICOM waveform.

    \b
    bedside analyze ptb-xl/records500/00000/00001_hr
    bedside analyze mitdb/207 --json -
    bedside analyze ecg.npy --fs 500
    """
    from ingest.recordings import open_recording

    recording = open_recording(path, fs=fs)
    session = load_model(model or Settings().model)
    with progress_bar(f"analysing {recording.name}", recording.duration_s) as done:
        analysis = _analyse(recording, session, on_second=done)
    if json_path:
        write_json(analysis.model_dump_json(), json_path)
    if json_path != "-":
        click.echo(_described(analysis))


def _analyse(
    recording: Recording, session: Session, *, on_second: Callable[[float], None] | None = None
) -> Analysis:
    from ingest.chunks import chunks_of
    from stream.offline import analyse

    return analyse(
        # The session is named after the record, so that a second run names the same alarms.
        chunks_of(recording, recording.name, recording.name),
        session,
        record=recording.name,
        on_window=(lambda _, __, finding: on_second(finding.end / recording.fs)) if on_second else None,
    )


def _described(analysis: Analysis) -> str:
    lines = [
        f"{analysis.record}: {_duration(analysis.duration_s)}, {analysis.fs:g} Hz, {' '.join(analysis.leads)}"
    ]
    if analysis.record_score is None:
        why = ", ".join(f"{reason} ({count})" for reason, count in analysis.not_scored.items())
        lines.append(f"  not scored: {why or 'shorter than one window of the model'}")
    else:
        verdict = "unusual" if analysis.anomalous else "as normals are"
        over = sum(window.anomalous for window in analysis.windows)
        lines.append(
            f"  {verdict}: score {analysis.record_score:.2f}, threshold {analysis.threshold:.2f}"
            f" (95 % of normals are below; model {analysis.model})"
        )
        lines.append(
            f"  {over} of {len(analysis.windows)} windows over the alarm threshold"
            f" {analysis.window_threshold:.2f}"
        )
        skipped = ", ".join(f"{count} {reason}" for reason, count in analysis.not_scored.items())
        if skipped:
            lines.append(f"  windows not scored: {skipped}")
        leads: dict[str, list[float]] = {}
        for window in analysis.windows:
            for lead, score in window.lead_scores.items():
                leads.setdefault(lead, []).append(score)
        ranked = sorted(((sum(s) / len(s), lead) for lead, s in leads.items()), reverse=True)
        lines.append("  by lead: " + "  ".join(f"{lead} {score:+.1f}" for score, lead in ranked))
    for alarm in analysis.alarms:
        end = f"to {_duration(alarm.end_s)}" if alarm.end_s is not None else "and lasts"
        lines.append(
            f"  alarm, {alarm.priority} priority: {alarm.message}, from {_duration(alarm.onset_s)} {end}"
        )
    if not analysis.alarms:
        lines.append("  no alarm")
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _known_errors() -> tuple[type[Exception], ...]:
    # Imported late: only a failed command needs them.
    from ingest.source import IngestError
    from models.bundle import BundleError
    from stream.bus import BusUnavailableError
    from stream.console import RefusalError
    from stream.embedded import EmbeddedServerError
    from stream.settings import BrokerError

    return (RefusalError, IngestError, BundleError, BusUnavailableError, EmbeddedServerError, BrokerError)


def main() -> None:
    """Run the command line: exit code 0 done, 1 failed, 2 bad usage; what can be put right is one line."""
    try:
        cli.main(prog_name="bedside", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(1)
    except BrokenPipeError:
        # The reader of our output has gone, as in `bedside alerts | head`.
        sys.stderr.close()
        sys.exit(0)
    except _known_errors() as error:
        click.echo(f"bedside: {' '.join(str(error).split())}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()

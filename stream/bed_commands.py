"""The command ``bed`` and those below it: what is in force for a bed, and how to change it."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import TYPE_CHECKING

import click

from stream.console import RefusalError, redis_option, request, server_url, who_option
from stream.settings import Settings

if TYPE_CHECKING:
    from stream.bed_settings import BedSettings

_json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object: the audit entry.")
_FROM = {
    "model": "the model's, from validation normals",
    "set": "set by hand",
    "baseline": "from this patient's own ECG",
}


@click.group("bed")
def bed() -> None:
    """Show and change what is in force for one bed: model, threshold, limits, patient.

    Each change is asked of the worker that holds the bed, is answered, and stands in the audit log.

    \b
    bedside bed show icu-1
    bedside bed set-model icu-1 vae-bilstm-mha-100hz --who "dr lee"
    bedside bed set-threshold icu-1 5.2
    bedside bed set-limits icu-1 tachycardia_bpm=150 bradycardia_bpm=45
    bedside bed confirm-baseline icu-1
    bedside bed admit icu-1
    bedside bed discharge icu-1
    """


@bed.command("show")
@click.argument("bed")
@click.option("--json", "as_json", is_flag=True, help="One JSON object; docs/wire.md has its fields.")
@redis_option
def show(bed: str, as_json: bool, redis: str | None) -> None:
    """Say what is in force for BED, and who said so.

    \b
    bedside bed show icu-1
    bedside bed show icu-1 --json
    """
    from stream.bed_settings import read_clock_skew, read_settings
    from stream.bus import Bus

    url = server_url(redis)

    async def read() -> tuple[BedSettings | None, float | None]:
        async with await Bus.connect(url, prefix=Settings().prefix) as bus:
            found = await read_settings(bus, bed)
            return found, None if found is None else await read_clock_skew(bus, found)

    found, skew_s = asyncio.run(read())
    if found is None:
        raise RefusalError(f"bed {bed} has not been heard by any worker")
    if as_json:
        click.echo(json.dumps(found.model_dump(mode="json") | {"clock_skew_s": skew_s}))
        return
    click.echo("\n".join([*_lines(found), f"  clock      {_clock(skew_s)}"]))


@bed.command("set-model")
@click.argument("bed")
@click.argument("model", required=False)
@click.option("--own", is_flag=True, help="The worker's own again.")
@who_option
@_json_option
@redis_option
def set_model(
    bed: str, model: str | None, own: bool, who: str | None, as_json: bool, redis: str | None
) -> None:
    """Choose the MODEL that judges BED.

    `bedside models list` shows what there is. The alarm of the model before ends, and a threshold or baseline
    that was set for it is dropped: scores of two models are not on one scale. The choice lasts until the
    patient is discharged.

    \b
    bedside bed set-model icu-1 vae-bilstm-mha-100hz --who "dr lee"
    bedside bed set-model icu-1 --own
    """
    from stream import asking

    if own == (model is not None):
        raise click.UsageError("name a MODEL, or --own for the worker's own")
    request(redis, who, lambda bus, name: asking.set_model(bus, bed, model, who=name), as_json=as_json)


@bed.command("set-threshold")
@click.argument("bed")
@click.argument("threshold", type=float, required=False)
@click.option("--reset", is_flag=True, help="The model's again.")
@who_option
@_json_option
@redis_option
def set_threshold(
    bed: str, threshold: float | None, reset: bool, who: str | None, as_json: bool, redis: str | None
) -> None:
    """Set the alarm threshold of BED.

    A window with a higher score counts towards an alarm. The model's own threshold came from counted false
    alarms on validation normals (docs/thresholds.md): one that is set by hand promises nothing of the kind.

    \b
    bedside bed set-threshold icu-1 5.2
    bedside bed set-threshold icu-1 --reset
    """
    from stream import asking

    if reset == (threshold is not None):
        raise click.UsageError("give a THRESHOLD, or --reset for the model's")
    request(
        redis, who, lambda bus, name: asking.set_threshold(bus, bed, threshold, who=name), as_json=as_json
    )


@bed.command("set-limits")
@click.argument("bed")
@click.argument("limits", metavar="NAME=VALUE...", nargs=-1)
@click.option("--reset", is_flag=True, help="All as by default.")
@who_option
@_json_option
@redis_option
def set_limits(
    bed: str, limits: tuple[str, ...], reset: bool, who: str | None, as_json: bool, redis: str | None
) -> None:
    """Set limits of rate and rhythm of BED.

    NAME= without a value takes one back. Names: asystole_s, bradycardia_bpm, bradycardia_beats,
    tachycardia_bpm, tachycardia_beats, vt_bpm, vt_beats, vf_s; docs/alarms.md says what they mean.

    \b
    bedside bed set-limits icu-1 tachycardia_bpm=150 bradycardia_bpm=45
    bedside bed set-limits icu-1 tachycardia_bpm=
    bedside bed set-limits icu-1 --reset
    """
    from stream import asking

    if reset == bool(limits):
        raise click.UsageError("give limits as NAME=VALUE, or --reset for all as by default")
    wanted = None if reset else dict(_limit(text) for text in limits)
    request(redis, who, lambda bus, name: asking.set_limits(bus, bed, wanted, who=name), as_json=as_json)


@bed.command("confirm-baseline")
@click.argument("bed")
@who_option
@_json_option
@redis_option
def confirm_baseline(bed: str, who: str | None, as_json: bool, redis: str | None) -> None:
    """Say that BED shows the patient's usual ECG.

    The alarm threshold is then taken from the scores of the last minutes; five are needed. `bedside bed
    set-threshold BED --reset` takes it back.

    \b
    bedside bed confirm-baseline icu-1 --who "dr lee"
    """
    from stream import asking

    request(redis, who, lambda bus, name: asking.confirm_baseline(bus, bed, who=name), as_json=as_json)


@bed.command("admit")
@click.argument("bed")
@click.option("--same", is_flag=True, help="The patient of before, with another device.")
@who_option
@_json_option
@redis_option
def admit(bed: str, same: bool, who: str | None, as_json: bool, redis: str | None) -> None:
    """Say that a new patient is in BED.

    What was set for the one before ends, and so do their alarms.

    \b
    bedside bed admit icu-1
    bedside bed admit icu-1 --same
    """
    from stream import asking

    request(redis, who, lambda bus, name: asking.admit(bus, bed, same=same, who=name), as_json=as_json)


@bed.command("discharge")
@click.argument("bed")
@who_option
@_json_option
@redis_option
def discharge(bed: str, who: str | None, as_json: bool, redis: str | None) -> None:
    """Say that the patient has left BED.

    Model, threshold, limits, baseline and alarms end.

    \b
    bedside bed discharge icu-1
    """
    from stream import asking

    request(redis, who, lambda bus, name: asking.discharge(bus, bed, who=name), as_json=as_json)


def _limit(text: str) -> tuple[str, float | None]:
    name, equals, value = text.partition("=")
    try:
        if name and equals:
            return name, float(value) if value else None
    except ValueError:
        pass
    raise click.BadParameter(f"{text}: give a limit as NAME=VALUE, as tachycardia_bpm=150")


def _lines(settings: BedSettings) -> list[str]:
    chosen = "the worker's own" if settings.chosen_model is None else f"chosen{_by(settings, 'model')}"
    threshold = f"{settings.threshold:.2f}, {_FROM[settings.threshold_from]}"
    if settings.threshold_from != "model":
        said = "threshold" if settings.threshold_from == "set" else "baseline"
        threshold += f"{_by(settings, said)}; the model's is {settings.stored_threshold:.2f}"
    changed = settings.patient_limits if settings.confirmed else {}
    limits = [f"{name} {value:g}{'*' * (name in changed)}" for name, value in settings.limits.items()]
    admitted = "nobody" if settings.admitted_t is None else f"a patient{_by(settings, 'admitted')}"
    lines = [
        f"{settings.bed}, session {settings.session}",
        f"  model      {settings.model}, {chosen}",
        f"  threshold  {threshold}",
        f"  limits     {', '.join(limits[:4])},",
        f"             {', '.join(limits[4:])}",
    ]
    if changed:
        lines.append(f"             * set for this patient{_by(settings, 'limits')}")
    lines.append(f"  admitted   {admitted}")
    if not settings.confirmed:
        lines += [
            "  another device feeds the bed: limits and threshold that were set do not count until somebody",
            f"  says who the patient is (bedside bed admit {settings.bed}; --same: the one of before)",
        ]
    return lines


def _clock(skew_s: float | None) -> str:
    if skew_s is None:
        return "nothing known of the device's"
    side = "behind" if skew_s > 0 else "ahead of"
    return (
        f"the device's is {abs(skew_s):.3f} s {side} where it was against ours when the worker first heard it"
    )


def _by(settings: BedSettings, what: str) -> str:
    said = settings.said.get(what)
    if said is None:
        return ""
    return f" by {said.who} at {datetime.fromtimestamp(said.t / 1e9):%Y-%m-%d %H:%M:%S}"

"""The command ``alerts`` and those below it."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import click

from stream.console import (
    RefusalError,
    json_lines_option,
    metrics_option,
    redis_option,
    request,
    run_until_stopped,
    serve_metrics,
    server_url,
    since_option,
    start_of,
    until,
    who_option,
)
from stream.logs import say
from stream.sdc import Network, sdc_options
from stream.settings import Settings

if TYPE_CHECKING:
    from stream.contract import AlarmEvent

_kind_option = click.option(
    "--kind", type=click.Choice(["physiological", "technical"]), help="Only this kind."
)
_priority_option = click.option(
    "--priority", type=click.Choice(["high", "medium", "low", "info"]), help="Only this one and higher ones."
)
_beds_option = click.option("--bed", "beds", metavar="ID", multiple=True, help="Only this bed's; repeatable.")


@click.group("alerts", invoke_without_command=True)
@click.option("--follow", is_flag=True, help="Go on with those to come, until interrupted.")
@_beds_option
@_kind_option
@_priority_option
@click.option("--rule", "rules", metavar="NAME", multiple=True, help="Only this rule's; repeatable.")
@since_option("all that are kept; with --follow the next one")
@json_lines_option
@redis_option
@click.pass_context
def alerts(
    context: click.Context,
    follow: bool,
    beds: tuple[str, ...],
    kind: str | None,
    priority: str | None,
    rules: tuple[str, ...],
    since: str | None,
    as_json: bool,
    redis: str | None,
) -> None:
    """List alarms, or follow them: every transition, once, in order.

    Followed, it also says when no worker is heard of any more. Each line of --json has a position: go on
    behind it with --since.

    \b
    bedside alerts
    bedside alerts --follow --bed icu-1 --priority medium
    bedside alerts --since 10m --follow --json | your-program
    bedside alerts ack ALARM
    bedside alerts pause icu-1 --minutes 2
    """
    if context.invoked_subcommand is not None:
        given = [
            name
            for name in ("follow", "beds", "kind", "priority", "rules", "since", "as_json")
            if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
        ]
        if given:
            raise click.UsageError(f"options of the list go without {context.invoked_subcommand}")
        context.obj = redis
        return
    from stream.subscription.follow import alarms as subscribe

    begin = None if since is None else start_of(since)
    url = server_url(redis)

    async def run(stop: asyncio.Event) -> None:
        async def show() -> None:
            events = subscribe(
                url,
                prefix=Settings().prefix,
                bed=beds,
                kind=kind,
                priority=priority,
                rule=rules,
                since=begin,
                follow=follow,
            )
            async for event in events:
                click.echo(event.model_dump_json() if as_json else event_line(event))

        await until(stop, show())

    run_until_stopped(run)


@alerts.command("ack")
@click.argument("alarm", required=False)
@click.option("--bed", metavar="ID", help="All open alarms of this bed.")
@who_option
@redis_option
@click.pass_obj
def ack(outer: str | None, alarm: str | None, bed: str | None, who: str | None, redis: str | None) -> None:
    """Acknowledge ALARM, by the id that `bedside alerts --json` shows, or all of a bed.

    \b
    bedside alerts ack 5f3a9c0e1b2d4f60
    bedside alerts ack --bed icu-1 --who "nurse 7"
    """
    from stream import asking

    if (alarm is None) == (bed is None):
        raise click.UsageError("name an ALARM, or a bed with --bed")
    request(redis or outer, who, lambda bus, name: asking.acknowledge(bus, alarm, bed=bed, who=name))


@alerts.command("pause")
@click.argument("bed")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), required=True)
@who_option
@redis_option
@click.pass_obj
def pause(outer: str | None, bed: str, minutes: float, who: str | None, redis: str | None) -> None:
    """Pause the alarms of BED.

    \b
    bedside alerts pause icu-1 --minutes 2
    """
    from stream import asking

    request(redis or outer, who, lambda bus, name: asking.pause(bus, bed, minutes * 60, who=name))


@alerts.command("resume")
@click.argument("bed")
@who_option
@redis_option
@click.pass_obj
def resume(outer: str | None, bed: str, who: str | None, redis: str | None) -> None:
    """End the pause of BED's alarms.

    \b
    bedside alerts resume icu-1
    """
    from stream import asking

    request(redis or outer, who, lambda bus, name: asking.resume(bus, bed, who=name))


@alerts.command("forward")
@click.argument("address", metavar="URL")
@click.option("--name", default="", help="Under which its position is kept. [default: made from the URL]")
@click.option(
    "--secret-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Sign what is sent with the secret in this file.",
)
@_beds_option
@_kind_option
@_priority_option
@click.option("--rule", "rules", metavar="NAME", multiple=True, help="Only this rule's; repeatable.")
@since_option("the next one, when the hook runs for the first time; later where it was")
@click.option(
    "--give-up-hours",
    type=click.FloatRange(0),
    default=24.0,
    show_default=True,
    help="Repeat a delivery for so long, then keep it as a dead letter and go on.",
)
@click.option("--allow-private", is_flag=True, help="Also to private, link-local and loopback addresses.")
@redis_option
@metrics_option(9466)
@click.pass_obj
def forward(
    outer: str | None,
    address: str,
    name: str,
    secret_file: Path | None,
    beds: tuple[str, ...],
    kind: str | None,
    priority: str | None,
    rules: tuple[str, ...],
    since: str | None,
    give_up_hours: float,
    allow_private: bool,
    redis: str | None,
    metrics_port: int | None,
) -> None:
    """POST every transition to URL, in order, until it is taken.

    \b
    bedside alerts forward https://hooks.example/bedside --secret-file hook.key --priority medium
    bedside alerts forward http://10.0.0.7:8080/alarms --allow-private --bed icu-1 --bed icu-2
    """
    from stream.subscription.follow import wanted
    from stream.subscription.webhook import Forwarder, Hook

    begin = None if since is None else start_of(since)
    hook = Hook(
        address,
        name,
        None if secret_file is None else secret_file.read_bytes().strip(),
        wanted(beds, kind, priority, rules),
        allow_private,
        give_up_hours * 3600,
    )
    url = server_url(redis or outer)
    serve_metrics(metrics_port, 9466)

    async def run(stop: asyncio.Event) -> None:
        # Not the address: some receivers have their secret in its path.
        say(f"forwarding as {hook.name}")
        await until(stop, Forwarder(url, hook, prefix=Settings().prefix).run(begin))

    run_until_stopped(run)


@alerts.command("sdc", params=list(sdc_options("consumers")))
@click.option("--bed", "beds", metavar="ID", multiple=True, help="Only this bed's; repeatable.")
@click.option(
    "--epr",
    type=click.UUID,
    help="By which consumers know us again. [default: made from this machine, address and prefix]",
)
@click.option(
    "--trust-network",
    is_flag=True,
    help="Let every consumer of the network read alarms, without a certificate.",
)
@redis_option
@click.pass_obj
def sdc(
    outer: str | None,
    adapter: str,
    tls_cert: str | None,
    tls_key: str | None,
    tls_ca: str | None,
    beds: tuple[str, ...],
    epr: UUID | None,
    trust_network: bool,
    redis: str | None,
) -> None:
    """Provide alarms to ISO/IEEE 11073 SDC consumers, as BICEPS alert conditions (bedside[sdc]).

    Consumers find us on the network. Beyond this machine, only those that show a certificate can acknowledge.

    \b
    bedside alerts sdc
    bedside alerts sdc --adapter 10.1.2.3 --tls-cert us.pem --tls-key us.key --tls-ca consumers.pem
    """
    try:
        from stream.contract import EVERY_BED
        from stream.subscription.sdc.provider import AlarmProvider
    except ImportError as error:
        raise RefusalError(f"needs sdc11073: pip install 'bedside[sdc]' ({error})") from error
    url = server_url(redis or outer)
    try:
        network = Network(adapter, tls_cert, tls_key, tls_ca)
        provider = AlarmProvider(
            url, network, trust_network=trust_network, prefix=Settings().prefix, beds=beds, epr=epr
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None

    async def run(stop: asyncio.Event) -> None:
        where = f"{network.adapter}{' with TLS' if network.tls_cert else ''}"
        asked = "" if provider.acknowledged else "; consumers cannot acknowledge"
        who = provider.epr_of(EVERY_BED).urn
        said = f"alarms are provided over SDC at {where}; the deployment is {who}{asked}"
        await until(stop, provider.run(lambda: say(said)))

    run_until_stopped(run)


# How monitors mark priority in text (field practice after IEC 60601-1-8).
_MARKS = {"high": "***", "medium": "**", "low": "*", "info": ""}


def event_line(event: AlarmEvent) -> str:
    """Return one alarm transition as a line for people."""
    at = datetime.fromtimestamp(event.since / 1e9).strftime("%H:%M:%S")
    mark = _MARKS[event.priority] if event.kind == "physiological" else "!" * len(_MARKS[event.priority])
    score = f"  score {event.score:.1f}" if event.score is not None else ""
    return f"{at}  {event.bed:<12} {mark:<3} {event.presence:<4} {event.message}{score}"

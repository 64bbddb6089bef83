"""The command ``dashboard``."""

from __future__ import annotations

from pathlib import Path

import click

from stream.console import RefusalError, redis_option, server_url
from stream.logs import say
from stream.settings import Settings

_file = click.Path(dir_okay=False, path_type=Path)


@click.command("dashboard")
@click.option("--port", type=click.IntRange(0, 65535), default=5006, show_default=True)
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="Listen there; 0.0.0.0 for all addresses of this machine. Others than loopback need --users.",
)
@click.option(
    "--users",
    type=_file,
    metavar="FILE",
    help="Everybody has to sign in; see `bedside users`. [default: BEDSIDE_USERS_FILE]",
)
@click.option(
    "--public-name",
    "names",
    multiple=True,
    metavar="HOST[:PORT]",
    help="Another name by which it is reached, as that of a proxy; repeatable.",
)
@click.option("--prefix", "path", default="", metavar="PATH", help="Where a proxy has put it, as /bedside.")
@click.option("--tls-cert", type=_file, metavar="FILE", help="Serve over TLS with this certificate.")
@click.option("--tls-key", type=_file, metavar="FILE", help="Its key.")
@click.option(
    "--recordings",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where `bedside record` writes, for the history. [default: as there]",
)
@redis_option
def dashboard(
    port: int,
    host: str,
    users: Path | None,
    names: tuple[str, ...],
    path: str,
    tls_cert: Path | None,
    tls_key: Path | None,
    recordings: Path | None,
    redis: str | None,
) -> None:
    """Show the live page: every bed's state, one bed's leads, reconstruction and score, the alarms.

    \b
    bedside dashboard --port 8080
    bedside record --out recordings & bedside dashboard --recordings recordings
    bedside users add anna --users users.json
    bedside dashboard --host 0.0.0.0 --users users.json --tls-cert cert.pem --tls-key key.pem
    bedside dashboard --users users.json --public-name monitor.example --prefix /bedside
    """
    from monitor.server import MonitorError, Reach, serve

    if (tls_cert is None) != (tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key go together")
    settings = Settings()
    try:
        serve(
            server_url(redis),
            prefix=settings.prefix,
            reach=Reach(
                host=host,
                port=port,
                users=users or settings.users_file,
                names=names,
                path=path,
                tls=(tls_cert, tls_key) if tls_cert and tls_key else None,
            ),
            recordings=recordings,
            on_ready=lambda url: say(f"live page at {url}"),
        )
    except MonitorError as error:
        raise RefusalError(str(error)) from error

"""The command ``dashboard``."""

from __future__ import annotations

import click

from stream.console import RefusalError, redis_option, server_url
from stream.settings import Settings


@click.command("dashboard")
@click.option("--port", type=click.IntRange(0, 65535), default=5006, show_default=True)
@redis_option
def dashboard(port: int, redis: str | None) -> None:
    """Show the live page: every bed's state, one bed's leads, reconstruction and score.

    \b
    bedside dashboard --port 8080
    """
    from monitor.server import MonitorError, serve

    settings = Settings()
    try:
        serve(
            server_url(redis),
            prefix=settings.prefix,
            port=port,
            on_ready=lambda url: click.echo(f"bedside: live page at {url}", err=True),
        )
    except MonitorError as error:
        raise RefusalError(str(error)) from error

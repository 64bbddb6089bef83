"""The command ``config``."""

from __future__ import annotations

import json
from dataclasses import asdict

import click


@click.group("config")
def config() -> None:
    """Show the settings of a deployment: from the environment, files of secrets, a configuration file.

    \b
    bedside config show
    BEDSIDE_CONFIG=ward.toml bedside config show --json
    """


@config.command("show")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def show(as_json: bool) -> None:
    """Show every setting that is in force, and where it comes from; passwords are left out.

    The environment (BEDSIDE_REDIS_URL) goes before files of secrets (bedside_redis_url in /run/secrets, or in
    the folder that BEDSIDE_SECRETS names), and those before the configuration file (redis_url = "…" in the
    one that BEDSIDE_CONFIG names, else ~/.config/bedside/bedside.toml). Options of a command go before all.

    \b
    bedside config show
    bedside config show --json
    """
    from stream.settings import config_file, origins, unknown_variables, usual_config_file

    found, file, unknown = origins(), config_file(), unknown_variables()
    if as_json:
        body = {
            "config_file": str(file) if file else None,
            "settings": [asdict(one) for one in found],
            "unknown": [asdict(one) for one in unknown],
        }
        click.echo(json.dumps(body))
        return
    names = max(len(one.name) for one in found)
    values = max(len(one.value or "-") for one in found)
    for one in found:
        click.echo(f"{one.name:<{names}}  {one.value or '-':<{values}}  {one.source}")
    for variable in unknown:
        click.echo(f"ignored: {variable}")
    click.echo(f"configuration file: {file or f'none; {usual_config_file()} would be read'}")

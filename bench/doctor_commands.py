"""The command ``doctor``."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from stream.console import RefusalError, redis_option


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@redis_option
def doctor(as_json: bool, redis: str | None) -> None:
    """Check this machine and the server: a line for each thing, ok, warning or failed, and what would help.

    Python and packages, settings, the server's version, clock, memory and append-only file, the model's
    numbers on every backend that is installed, GPU, ports, disk, users file. Nothing is changed, and no
    server needs to run. Exit code 1 if something failed.

    \b
    bedside doctor
    bedside doctor --redis rediss://broker.example:6379 --json
    """
    from bench.doctor import examine

    findings = []
    for finding in examine(redis):
        findings.append(finding)
        if not as_json:
            helps = f": {finding.help}" if finding.help else ""
            click.echo(f"{finding.state:<8} {finding.check:<20} {finding.text}{helps}")
    failed = [finding.check for finding in findings if finding.state == "failed"]
    if as_json:
        click.echo(json.dumps({"failed": len(failed), "checks": [asdict(finding) for finding in findings]}))
    if failed:
        raise RefusalError(f"failed: {', '.join(failed)}")

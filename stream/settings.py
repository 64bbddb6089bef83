"""Settings from the environment: variables that start with ``BEDSIDE_``."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

from pydantic_settings import BaseSettings, SettingsConfigDict

from stream.topics import DEFAULT_PREFIX


class Settings(BaseSettings):
    """What a deployment sets once; an option of a command goes before it."""

    model_config = SettingsConfigDict(env_prefix="BEDSIDE_", extra="ignore")

    redis_url: str | None = None
    """Server of the streams: ``redis://``, ``rediss://`` or ``unix://``; default the embedded one."""
    broker_url: str | None = None
    """Where the worker's Faust app runs; default the same server."""
    prefix: str = DEFAULT_PREFIX
    """Start of every key of this deployment."""
    model: str = "cae-100hz"
    """Name of a shipped bundle or path of a bundle folder."""
    backend: str = "auto"
    """What runs the model in a worker; ``"auto"`` for the fastest on its machine."""
    users_file: Path | None = None
    """Who may use the dashboard (`bedside users`); default nobody else than this machine."""
    runtime_dir: Path | None = None
    """Folder of the embedded server's socket; default one of the user's own."""
    recordings: Path | None = None
    """Folder of the recorder; default one of the user's own."""
    datasets: Path | None = None
    """Folder of downloaded records; default ``bedside/datasets`` in the user's cache folder."""
    physionet_url: str = "https://physionet.org/files"
    """Where data sets are downloaded from: PhysioNet, or a mirror with the same folders."""


class BrokerError(ValueError):
    """A broker that the worker cannot use; the text says which and why, in one line."""


def broker_with_prefix(url: str, prefix: str) -> str:
    """Return a broker URL that also says with what every key of the deployment begins.

    Raises
    ------
    BrokerError
        If Faust would not run on our streams there.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise BrokerError(f"broker {url}: redis://, rediss:// and unix:// are possible")
    query = [(name, value) for name, value in parse_qsl(parts.query) if name != "prefix"]
    # Not urlunsplit: it drops the empty host of unix:///path.
    return f"{url.partition('?')[0]}?{urlencode([*query, ('prefix', prefix)], safe=':')}"

"""Settings from the environment: variables that start with ``BEDSIDE_``."""

from __future__ import annotations

from pathlib import Path

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
    runtime_dir: Path | None = None
    """Folder of the embedded server's socket; default one of the user's own."""

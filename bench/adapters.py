"""Measure the adapters of live feeds: from the arrival of a message until its chunk is on the stream.

``python -m bench.adapters`` starts a server of its own, an adapter, and a ward of devices that send to it,
each a process. The arrival is the adapter's stamp of the last message of a chunk, the end the time at which
the server took the chunk; both are of this machine. What a chunk waits for the rest of its samples is no
part of it: that is the device's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil

from bench.machine import machine, versions
from bench.markdown import table
from bench.ports import free_port
from ingest.live.hl7.mllp import frame
from stream.bus import Bus
from stream.children import spawn
from stream.clock import SystemClock
from stream.console import json_option, write_json
from stream.contract import SampleChunk
from stream.embedded import EmbeddedServer
from stream.leads import LEADS
from stream.topics import SAMPLES

FS = 500
MESSAGE_S = 0.1
"""As the documentation advises."""
_N = round(FS * MESSAGE_S)
_WARM_UP_S = 2.0
# Different stretches of signal, so that nobody keeps one.
_STRETCHES = 16

Send = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Device:
    """One bed's device, in the process that sends.

    Attributes
    ----------
    bed : str
    port : int
        Of this machine, where what it sends to listens.
    """

    bed: str
    port: int


@dataclass(frozen=True, slots=True)
class Subject:
    """An adapter, and how a device sends to it.

    Attributes
    ----------
    arguments : callable
        Given the port, those of ``bedside ingest``.
    connect : callable
        Given a device, the context in which it is connected; gives what sends a message.
    message : callable
        Given the device, the number of the first sample, its time (ns) and the samples in LSB of 1 uV, shape
        (n, leads), the message.
    between : callable, optional
        Given the port, a context in which what is between the two listens there, such as a broker.
    """

    arguments: Callable[[int], list[str]]
    connect: Callable[[Device], AbstractAsyncContextManager[Send]]
    message: Callable[[Device, int, int, np.ndarray[Any, Any]], bytes]
    between: Callable[[int], contextlib.AbstractContextManager[None]] | None = None


# ---- the subjects ----------------------------------------------------------------------------------------


def _header(device: Device, n0: int, t_ns: int, **fields: Any) -> dict[str, Any]:
    return {"bed": device.bed, "fs": FS, "leads": LEADS, "n0": n0, "t": t_ns / 1e9} | fields


def _text(device: Device, n0: int, t_ns: int, samples: np.ndarray[Any, Any]) -> bytes:
    return json.dumps(_header(device, n0, t_ns, unit="uV", samples=samples.tolist())).encode() + b"\n"


def _binary(device: Device, n0: int, t_ns: int, samples: np.ndarray[Any, Any]) -> bytes:
    header = json.dumps(_header(device, n0, t_ns, gain=1000)).encode()
    return header + b"\n" + samples.astype("<i2").tobytes()


def _frame(device: Device, n0: int, t_ns: int, samples: np.ndarray[Any, Any]) -> bytes:
    message = _binary(device, n0, t_ns, samples)
    return b"\xec" + struct.pack(">I", len(message)) + message


@contextlib.asynccontextmanager
async def _tcp(device: Device) -> AsyncIterator[Send]:
    _, writer = await asyncio.open_connection("127.0.0.1", device.port)

    async def send(data: bytes) -> None:
        writer.write(data)
        await writer.drain()

    yield send
    writer.close()


@contextlib.asynccontextmanager
async def _websocket(device: Device) -> AsyncIterator[Send]:
    import aiohttp

    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"http://127.0.0.1:{device.port}/") as connection,
    ):
        yield connection.send_bytes


@contextlib.asynccontextmanager
async def _mqtt(device: Device) -> AsyncIterator[Send]:
    import aiomqtt

    async with aiomqtt.Client("127.0.0.1", device.port) as client:

        async def send(data: bytes) -> None:
            await client.publish(f"ecg/{device.bed}", data, qos=1)

        yield send


@contextlib.contextmanager
def _mosquitto(port: int) -> Iterator[None]:
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if program is None:
        raise click.ClickException("mqtt needs mosquitto: apt-get install mosquitto")
    process = subprocess.Popen([program, "-p", str(port)], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@contextlib.asynccontextmanager
async def _mllp(device: Device) -> AsyncIterator[Send]:
    reader, writer = await asyncio.open_connection("127.0.0.1", device.port)

    async def send(data: bytes) -> None:
        writer.write(data)
        await reader.readuntil(b"\x1c\r")

    yield send
    writer.close()


def _hl7(device: Device, n0: int, t_ns: int, samples: np.ndarray[Any, Any]) -> bytes:
    stamp = datetime.fromtimestamp(t_ns / 1e9, UTC).strftime("%Y%m%d%H%M%S.%f+0000")
    lines = [
        f"MSH|^~\\&|{device.bed}||||{stamp}||ORU^R01|{n0}|P|2.6",
        f"PV1||I|^^{device.bed}",
        f"OBR|1||||||{stamp}",
    ]
    for number, lead in enumerate(LEADS):
        array = "^".join(map(str, samples[:, number].tolist()))
        lines += [
            f"OBX||NA|^MDC_ECG_ELEC_POTL_{lead.upper()}^MDC|1.{number}|{array}|^MDC_DIM_MICRO_VOLT",
            f"OBX||NM|^MDC_ATTR_SAMP_RATE^MDC|1.{number}.1|{FS}",
        ]
    return frame("".join(f"{line}\r" for line in lines).encode())


@contextlib.asynccontextmanager
async def _outlet(device: Device) -> AsyncIterator[Send]:
    import pylsl

    info = pylsl.StreamInfo(device.bed, "ECG", len(LEADS), FS, "int16", f"{device.bed}@{device.port}")
    info.set_channel_labels(list(LEADS))
    info.set_channel_units("uV")
    outlet = pylsl.StreamOutlet(info, chunk_size=_N)
    await asyncio.to_thread(outlet.wait_for_consumers, 30)
    epoch_ns = SystemClock().now_ns() - round(pylsl.local_clock() * 1e9)

    async def send(data: bytes) -> None:
        t_ns, samples = int.from_bytes(data[:8], "little"), np.frombuffer(data, "<i2", offset=8)
        end = (t_ns - epoch_ns) / 1e9 + (_N - 1) / FS
        outlet.push_chunk(samples.reshape(_N, -1), end)

    yield send
    # What an outlet has not sent goes with it.
    await asyncio.sleep(1)


def _lsl(device: Device, n0: int, t_ns: int, samples: np.ndarray[Any, Any]) -> bytes:
    return t_ns.to_bytes(8, "little") + samples.astype("<i2").tobytes()


def _mqtt_arguments(port: int) -> list[str]:
    return ["mqtt", "--broker", f"mqtt://127.0.0.1:{port}", "--topic", "ecg/+"]


SUBJECTS: dict[str, Subject] = {
    "tcp-json": Subject(lambda port: ["tcp", "--port", str(port)], _tcp, _text),
    "tcp-binary": Subject(lambda port: ["tcp", "--port", str(port)], _tcp, _frame),
    "ws-binary": Subject(lambda port: ["ws", "--port", str(port)], _websocket, _binary),
    "hl7": Subject(lambda port: ["hl7", "--port", str(port)], _mllp, _hl7),
    "lsl": Subject(lambda port: ["lsl"], _outlet, _lsl),
    "mqtt-binary": Subject(_mqtt_arguments, _mqtt, _binary, _mosquitto),
}
"""By name."""


# ---- the devices: a process of their own -----------------------------------------------------------------


def send_all(name: str, port: int, beds: int, messages: int, connected: Any, report: Any) -> None:
    """Be all devices; set `connected`; put how late they were, ms, 99th percentile, into `report`."""
    report.put(asyncio.run(_send_all(SUBJECTS[name], port, beds, messages, connected)))


async def _send_all(subject: Subject, port: int, beds: int, messages: int, connected: Any) -> float:
    noise = np.random.default_rng(0)
    stretches = [noise.integers(-2000, 2000, (_N, len(LEADS)), np.int16) for _ in range(_STRETCHES)]
    clock, late, everybody = SystemClock(), [], asyncio.Barrier(beds)

    async def be(number: int) -> None:
        device = Device(f"bench-{number}", port)
        async with subject.connect(device) as send:
            await everybody.wait()
            connected.set()
            begun = clock.now_ns() + round(number * MESSAGE_S * 1e9 / beds)
            for count in range(messages):
                due = begun + round((count + 1) * MESSAGE_S * 1e9)
                samples = stretches[(count + number) % _STRETCHES]
                t_ns = begun + round(count * MESSAGE_S * 1e9)
                data = subject.message(device, count * _N, t_ns, samples)
                await clock.sleep_until(due)
                late.append(clock.now_ns() - due)
                await send(data)

    await asyncio.gather(*(be(number) for number in range(beds)))
    return round(float(np.percentile(late, 99)) / 1e6, 2)


# ---- the measurement -------------------------------------------------------------------------------------


def measure(name: str, beds: int, seconds: float) -> dict[str, Any]:
    """Measure one adapter with so many beds of 12 leads at 500 Hz.

    Returns
    -------
    dict
        Latencies in milliseconds, processor of the adapter in percent of one core, samples that were lost.
    """
    subject, port = SUBJECTS[name], free_port()
    messages = round((_WARM_UP_S + seconds) / MESSAGE_S)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bs-"))
        server = stack.enter_context(EmbeddedServer(Path(folder)))
        if subject.between is not None:
            stack.enter_context(subject.between(port))
        command = [sys.executable, "-m", "bedside", "ingest", *subject.arguments(port)]
        adapter = spawn([*command, "--redis", server.url, "--metrics-port", "0"], stderr=subprocess.PIPE)
        assert adapter.stderr is not None
        said = b""
        # liblsl has a word to say first.
        while b"waiting for devices" not in said:
            if not (line := adapter.stderr.readline()):
                raise click.ClickException(said.decode().strip())
            said += line
        context = multiprocessing.get_context("spawn")
        connected, report = context.Event(), context.Queue()
        devices = context.Process(target=send_all, args=(name, port, beds, messages, connected, report))
        devices.start()
        process = psutil.Process(adapter.pid)
        if not connected.wait(60):
            raise click.ClickException(f"{name}: the devices could not connect")
        time.sleep(_WARM_UP_S)
        before, begun = process.cpu_times(), time.monotonic()
        late_ms = report.get(timeout=60 + seconds)
        after, took = process.cpu_times(), time.monotonic() - begun
        memory = process.memory_info().rss
        devices.join()
        adapter.send_signal(signal.SIGTERM)
        adapter.wait()
        latency_ms, samples = asyncio.run(_read(server.url))
        return {
            "adapter": name,
            "beds": beds,
            "seconds": round(took, 1),
            "p50_ms": round(float(np.percentile(latency_ms, 50)), 1),
            "p99_ms": round(float(np.percentile(latency_ms, 99)), 1),
            "max_ms": round(float(np.max(latency_ms)), 1),
            "cpu_percent": round(100 * (sum(after[:2]) - sum(before[:2])) / took, 1),
            "rss_mb": round(memory / 2**20, 1),
            "lost_samples": beds * messages * _N - samples,
            "devices_late_p99_ms": late_ms,
        }


async def _read(url: str) -> tuple[np.ndarray[Any, Any], int]:
    latency, samples, first = [], 0, 0
    async with await Bus.connect(url) as bus:
        async for entry in bus.kept(SAMPLES):
            chunk = SampleChunk.decode(entry.value)
            samples += len(chunk.samples)
            first = min(first or chunk.header.ingest_ns, chunk.header.ingest_ns)
            if not chunk.header.last:
                # The server tells whole milliseconds: this is never less than what it was.
                latency.append((chunk.header.ingest_ns, entry.time_ms + 1 - chunk.header.ingest_ns / 1e6))
    warm = first + _WARM_UP_S * 1e9
    return np.array([ms for at, ms in latency if at >= warm]), samples


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(sorted(SUBJECTS)))
@click.option("--beds", default=64, show_default=True, type=click.IntRange(1, 1024))
@click.option("--seconds", default=60.0, show_default=True, type=click.FloatRange(min=1))
@json_option
def main(names: Sequence[str], beds: int, seconds: float, json_path: str | None) -> None:
    """Measure the adapters (all of them, or NAMES): latency from arrival to stream, processor, losses.

    \b
    python -m bench.adapters
    python -m bench.adapters tcp-binary --beds 256 --seconds 20
    """  # noqa: D301 (click needs the control character)
    rows = []
    for name in names or SUBJECTS:
        rows.append(measure(name, beds, seconds))
        click.echo(" ".join(f"{key}={value}" for key, value in rows[-1].items()), err=True)
    columns = ("adapter", "p50_ms", "p99_ms", "max_ms", "cpu_percent", "rss_mb", "lost_samples")
    click.echo("\n".join(table(columns, ([str(row[key]) for key in columns] for row in rows))))
    if json_path:
        result = {"benchmark": "adapters", "machine": machine(), "versions": versions(), "rows": rows}
        write_json(json.dumps(result, indent=1), json_path)


if __name__ == "__main__":
    main()

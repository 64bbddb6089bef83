"""Measure the adapters of live feeds: from the arrival of a message until its chunk is on the stream.

``python -m bench.adapters`` starts a server of its own, an adapter, and a ward of devices that send to it,
each a process. The arrival is the adapter's stamp of the last message of a chunk, the end the time at which
the server took the chunk; both are of this machine. What a chunk waits for the rest of its samples is no
part of it: that is the device's. Of SDC it is the whole way, from the device's last sample.
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
import threading
import time
import uuid
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
# SDC sends samples as decimal numbers in XML, which the devices write and the adapter reads in Python: a core
# has no time for a whole ward.
_SDC_BEDS = 8
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
        Of this machine, where what it sends to listens; of no other measurement that is under way.
    """

    bed: str
    port: int

    @property
    def name(self) -> str:
        """Of its own among all that are on the network."""
        return f"{self.bed}@{self.port}"

    @property
    def epr(self) -> uuid.UUID:
        """The same as an SDC device has it."""
        return uuid.uuid5(uuid.NAMESPACE_URL, self.name)


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
    named : callable, optional
        Given a device, the option by which an adapter that looks for devices itself takes it, and no others.
    between : callable, optional
        Given the port, a context in which what is between the two listens there, such as a broker.
    whole_way : bool
        The adapter's library stamps an arrival only once it has read the message, and takes samples some time
        after the device has begun: latencies count from the time at which the last sample of a chunk was
        taken, and of what is lost only holes can be told.
    beds : int
        How many there are unless told.
    """

    arguments: Callable[[int], list[str]]
    connect: Callable[[Device], AbstractAsyncContextManager[Send]]
    message: Callable[[Device, int, int, np.ndarray[Any, Any]], bytes]
    named: Callable[[Device], list[str]] = lambda device: []
    between: Callable[[int], contextlib.AbstractContextManager[None]] | None = None
    whole_way: bool = False
    beds: int = 64


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

    info = pylsl.StreamInfo(device.name, "ECG", len(LEADS), FS, "int16", device.name)
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


def _stamped(device: Device, n0: int, t_ns: int, samples: np.ndarray[Any, Any]) -> bytes:
    return t_ns.to_bytes(8, "little") + samples.astype("<i2").tobytes()


@contextlib.asynccontextmanager
async def _sdc(device: Device) -> AsyncIterator[Send]:
    from bench.sdc_device import device as sdc_device

    async with sdc_device(device.bed, device.epr, LEADS, FS) as report:

        async def send(data: bytes) -> None:
            t_ns, samples = int.from_bytes(data[:8], "little"), np.frombuffer(data, "<i2", offset=8)
            await report(t_ns, samples.reshape(_N, -1))

        yield send


def _mqtt_arguments(port: int) -> list[str]:
    return ["mqtt", "--broker", f"mqtt://127.0.0.1:{port}", "--topic", "ecg/+"]


SUBJECTS: dict[str, Subject] = {
    "tcp-json": Subject(lambda port: ["tcp", "--port", str(port)], _tcp, _text),
    "tcp-binary": Subject(lambda port: ["tcp", "--port", str(port)], _tcp, _frame),
    "ws-binary": Subject(lambda port: ["ws", "--port", str(port)], _websocket, _binary),
    "hl7": Subject(lambda port: ["hl7", "--port", str(port)], _mllp, _hl7),
    "lsl": Subject(lambda port: ["lsl"], _outlet, _stamped, lambda device: ["--name", device.name]),
    "mqtt-binary": Subject(_mqtt_arguments, _mqtt, _binary, between=_mosquitto),
    "sdc": Subject(
        lambda port: ["sdc"],
        _sdc,
        _stamped,
        lambda device: ["--device", device.epr.urn],
        whole_way=True,
        beds=_SDC_BEDS,
    ),
}
"""By name."""


# ---- the devices: a process of their own -----------------------------------------------------------------


def send_all(name: str, port: int, beds: int, messages: int, connected: Any, report: Any) -> None:
    """Be all devices; set `connected`; put how late they were, ms, 99th percentile, into `report`."""
    report.put(asyncio.run(_send_all(SUBJECTS[name], port, beds, messages, connected)))


def _devices(port: int, beds: int) -> list[Device]:
    return [Device(f"bench-{number}", port) for number in range(beds)]


async def _send_all(subject: Subject, port: int, beds: int, messages: int, connected: Any) -> float:
    noise = np.random.default_rng(0)
    stretches = [noise.integers(-2000, 2000, (_N, len(LEADS)), np.int16) for _ in range(_STRETCHES)]
    clock, late, everybody = SystemClock(), [], asyncio.Barrier(beds)

    async def be(number: int, device: Device) -> None:
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

    await asyncio.gather(*(be(number, device) for number, device in enumerate(_devices(port, beds))))
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
        named = [option for device in _devices(port, beds) for option in subject.named(device)]
        command = [sys.executable, "-m", "bedside", "ingest", *subject.arguments(port), *named]
        adapter = spawn([*command, "--redis", server.url, "--metrics-port", "0"], stderr=subprocess.PIPE)
        assert adapter.stderr is not None
        said = b""
        # liblsl has a word to say first.
        while b"waiting for devices" not in said:
            if not (line := adapter.stderr.readline()):
                raise click.ClickException(said.decode().strip())
            said += line
        # It may have more to say than fits into a pipe that nobody reads, and would wait for ever.
        threading.Thread(target=adapter.stderr.read, daemon=True).start()
        context = multiprocessing.get_context("spawn")
        connected, report = context.Event(), context.Queue()
        devices = context.Process(target=send_all, args=(name, port, beds, messages, connected, report))
        devices.start()
        process = psutil.Process(adapter.pid)
        if not connected.wait(120):
            raise click.ClickException(f"{name}: the devices could not connect")
        time.sleep(_WARM_UP_S)
        before, begun = process.cpu_times(), time.monotonic()
        late_ms = report.get(timeout=60 + seconds)
        after, took = process.cpu_times(), time.monotonic() - begun
        memory = process.memory_info().rss
        devices.join()
        adapter.send_signal(signal.SIGTERM)
        adapter.wait()
        latency_ms, samples, holes = asyncio.run(_read(server.url, subject.whole_way))
        return {
            "adapter": name,
            "beds": beds,
            "seconds": round(took, 1),
            "p50_ms": round(float(np.percentile(latency_ms, 50)), 1),
            "p99_ms": round(float(np.percentile(latency_ms, 99)), 1),
            "max_ms": round(float(np.max(latency_ms)), 1),
            "cpu_percent": round(100 * (sum(after[:2]) - sum(before[:2])) / took, 1),
            "rss_mb": round(memory / 2**20, 1),
            "lost_samples": holes if subject.whole_way else beds * messages * _N - samples,
            "devices_late_p99_ms": late_ms,
        }


async def _read(url: str, whole_way: bool) -> tuple[np.ndarray[Any, Any], int, int]:
    # Latencies, samples, and how many are missing between them.
    latency, samples, first = [], 0, 0
    spans: dict[str, tuple[int, int]] = {}
    async with await Bus.connect(url) as bus:
        async for entry in bus.kept(SAMPLES):
            chunk = SampleChunk.decode(entry.value)
            header = chunk.header
            samples += len(chunk.samples)
            begin, _ = spans.get(header.session, (header.n0, 0))
            spans[header.session] = (begin, chunk.end)
            first = min(first or header.ingest_ns, header.ingest_ns)
            if not header.last:
                since_ns = chunk.time_of(chunk.end) if whole_way else header.ingest_ns
                # The server tells whole milliseconds: this is never less than what it was.
                latency.append((header.ingest_ns, entry.time_ms + 1 - since_ns / 1e6))
    warm = first + _WARM_UP_S * 1e9
    holes = sum(end - begin for begin, end in spans.values()) - samples
    return np.array([ms for at, ms in latency if at >= warm]), samples, holes


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(sorted(SUBJECTS)))
@click.option("--beds", type=click.IntRange(1, 1024), help=f"[default: 64, of SDC {_SDC_BEDS}]")
@click.option("--seconds", default=60.0, show_default=True, type=click.FloatRange(min=1))
@json_option
def main(names: Sequence[str], beds: int | None, seconds: float, json_path: str | None) -> None:
    """Measure the adapters (all of them, or NAMES): latency from arrival to stream, processor, losses.

    \b
    python -m bench.adapters
    python -m bench.adapters tcp-binary --beds 256 --seconds 20
    """  # noqa: D301 (click needs the control character)
    rows = []
    for name in names or SUBJECTS:
        rows.append(measure(name, beds or SUBJECTS[name].beds, seconds))
        click.echo(" ".join(f"{key}={value}" for key, value in rows[-1].items()), err=True)
    columns = ("adapter", "p50_ms", "p99_ms", "max_ms", "cpu_percent", "rss_mb", "lost_samples")
    click.echo("\n".join(table(columns, ([str(row[key]) for key in columns] for row in rows))))
    if json_path:
        result = {"benchmark": "adapters", "machine": machine(), "versions": versions(), "rows": rows}
        write_json(json.dumps(result, indent=1), json_path)


if __name__ == "__main__":
    main()

"""Send rubbish to whatever reads what others send: a million inputs a parser, guided by what code they reach.

``python -m bench.fuzz`` runs libFuzzer (atheris) on each parser in a process of its own, which may crash,
hang (more than ten seconds for one input) or take memory (more than 2 GB) without harm to the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from bench.machine import machine, versions
from bench.markdown import table
from stream.console import json_option, write_json

_TIMEOUT_S = 10
_MEMORY_MB = 2048


@dataclass(frozen=True, slots=True)
class Parser:
    """What is fuzzed.

    Attributes
    ----------
    modules : tuple of str
        Whose branches count as new ground.
    make : callable
        Returns what takes an input: it returns, or something is wrong.
    seeds : tuple of bytes
        Inputs to begin with.
    longest : int
        Bytes of an input.
    """

    modules: tuple[str, ...]
    make: Callable[[], Callable[[bytes], object]]
    seeds: tuple[bytes, ...]
    longest: int = 4096


_MESSAGE = {
    "bed": "icu-1",
    "device": "d",
    "fs": 250,
    "leads": ["II", "V1"],
    "n0": 7,
    "t": 1.5,
    "valid": ["ok", "off"],
}
_TEXT = json.dumps(_MESSAGE | {"unit": "mV", "samples": [[0.5, None], [1, 2]]}).encode()
_BINARY = json.dumps(_MESSAGE | {"gain": [1000, 200], "last": True}).encode() + b"\n\x00\x01\x02\x03"
_FRAME = b"\xec" + len(_BINARY).to_bytes(4, "big") + _BINARY


def _messages() -> Callable[[bytes], object]:
    from ingest.live.messages import read_piece
    from ingest.source import IngestError

    def take(data: bytes) -> None:
        with contextlib.suppress(IngestError):
            read_piece(data, sender="sender", arrived_ns=0)

    return take


def _frames() -> Callable[[bytes], object]:
    from ingest.live.tcp import next_message
    from ingest.source import IngestError

    # Shorter than inputs may be: the limit, too, is to be met.
    limit = 1024

    async def read(data: bytes) -> None:
        reader = asyncio.StreamReader(limit=limit)
        cut = data[0] if data else 1
        for at in range(1, len(data), cut or 1):
            reader.feed_data(data[at : at + (cut or 1)])
        reader.feed_eof()
        with contextlib.suppress(IngestError, asyncio.IncompleteReadError):
            while await next_message(reader, "sender") is not None:
                pass

    loop = asyncio.new_event_loop()
    return lambda data: loop.run_until_complete(read(data))


def _chunks() -> Callable[[bytes], object]:
    from stream.contract import MalformedMessageError, SampleChunk, to_millivolts

    def take(data: bytes) -> None:
        with contextlib.suppress(MalformedMessageError):
            chunk = SampleChunk.decode(data)
            to_millivolts([chunk])
            SampleChunk.decode(chunk.encode())

    return take


def _chunk_seed() -> bytes:
    header = {"v": 1, "bed": "b", "session": "s", "seq": 0, "n0": 0, "fs": 250, "t0": 1, "ingest_ns": 1}
    header |= {"leads": ["II"], "gain": [1000], "valid": ["ok"]}
    return json.dumps(header).encode() + b"\n\x00\x01\x02\x03"


def _faults() -> Callable[[bytes], object]:
    from ingest.faults.script import parse_script
    from ingest.source import IngestError

    def take(data: bytes) -> None:
        with contextlib.suppress(IngestError):
            parse_script(data)

    return take


def _hl7() -> Callable[[bytes], object]:
    from datetime import UTC, datetime

    from ingest.live.hl7.message import RefusedMessageError, answer, read_messages
    from ingest.live.hl7.waveforms import read_waves

    now = datetime.now(UTC)

    def take(data: bytes) -> None:
        header, refused = None, None
        try:
            for message in read_messages(data):
                header = header or message[0]
                read_waves(message)
        except RefusedMessageError as error:
            refused = error
        # What we answer can be read.
        reply = answer(header, refused, now)
        if reply is not None and [segment.name for segment in read_messages(reply)[0]][:2] != ["MSH", "MSA"]:
            raise AssertionError(reply)

    return take


_WCM = b"""MSH|^~\\&|GW^01^EUI-64|W3|||20261129101501+0100||ORU^R01^ORU_R01|1|P|2.6|||AL|AL\r
PID|||1^^^H^MR\rPV1||I|ICU^2^7&1\rOBR|1|||69121^MDC_OBS_WAVE_CTS^MDC|||20261129101500.000+0100\r
OBX|1||69965^MDC_DEV_MON^MDC|1.0.0.0|||||||X|||||||M-1\r
OBX|2|NA|131330^MDC_ECG_ELEC_POTL_II^MDC|1.1.1.1|12^13^^32767~15|262656^MDC_DIM_DIMLESS^MDC||QUES|||R\r
OBX|3|NM|0^MDC_ATTR_SAMP_RATE^MDC|1.1.1.1.1|500|264608^MDC_DIM_PER_SEC^MDC\r
OBX|4|NM|2327^MDC_ATTR_NU_MSMT_RES^MDC|1.1.1.1.2|0.0025|266418^MDC_DIM_MILLI_VOLT^MDC\r
OBX|5|NM|262196^MDC_EVT_INOP^MDC|1.1.1.1.3|32767\rOBX|6|NA|131329|1.1.1.2|-0.1^1e-3|mV|||||X\r
OBX|7|NM|0^MDC_ATTR_TIME_PD_SAMP^MDC|1.1.1.2.1|4|264338^MDC_DIM_MILLI_SEC^MDC\r""".replace(b"\n", b"")
_PLAIN = b"""MSH|^~\\&|VitalRecorder|OR5|||20261129101501||ORU^R01|7|P|2.6\rPID|||\rPV1||I|BED-1\r
OBR|1|||VITAL_SIGNS|||20261129101500|20261129101501\rOBX|1|NM|ECG_HR^Monitor/HR||72|bpm|40^200||||R\r
OBX|2|NA|ECG_WAV^Monitor/ECG_II@100||0.12^^0.15|mV|-1.5^1.5||||R\r""".replace(b"\n", b"")


def _mllp() -> Callable[[bytes], object]:
    from ingest.live.hl7.mllp import Deframer

    def take(data: bytes) -> None:
        cut = (data[0] if data else 0) or 1
        whole, parts = Deframer(), Deframer()
        found = [message for at in range(0, len(data), cut) for message in parts.feed(data[at : at + cut])]
        if found != whole.feed(data):
            raise AssertionError("the same bytes in other pieces are other messages")

    return take


def _feed() -> Callable[[bytes], object]:
    import numpy as np

    from ingest.live.feed import BedFeed
    from ingest.live.source import Piece

    samples = np.zeros((64, 1), np.int16)

    def take(data: bytes) -> None:
        # Each piece: how long, by what it is placed and where, and when it comes.
        feed, now, sent, kept = BedFeed("b", "d"), 10**18, 0, 0
        for at in range(0, len(data) - 12, 12):
            length, how, pause = data[at] % 64 + 1, data[at + 1], data[at + 2] * 10_000_000
            place = int.from_bytes(data[at + 3 : at + 3 + how // 32 + 1], "little")
            now += pause
            feed.add(
                Piece(
                    bed="b",
                    device="d",
                    fs=250.0 if how & 1 else 360.0,
                    leads=("II",),
                    gain=(1000.0,),
                    samples=samples[:length],
                    arrived_ns=now,
                    n0=place % 2**62 if how & 2 else None,
                    t_ns=(10**18 + place * 1_000_000) % 2**62 if how & 4 else None,
                    last=how & 24 == 24,
                )
            )
            sent += length
            kept += sum(len(chunk.samples) for chunk in feed.take(now))
        kept += sum(len(chunk.samples) for chunk in feed.end(now))
        if kept + feed.dropped != sent:
            raise AssertionError(f"{sent} samples came, {kept} left and {feed.dropped} were dropped")

    return take


PARSERS: dict[str, Parser] = {
    "messages": Parser(("ingest.live.messages", "ingest.live.source"), _messages, (_TEXT, _BINARY)),
    "frames": Parser(("ingest.live.tcp",), _frames, (b"\x07" + _TEXT + b"\n" + _FRAME, b"\x01" + _FRAME * 2)),
    "chunks": Parser(("stream.contract",), _chunks, (_chunk_seed(),)),
    "faults": Parser(
        ("ingest.faults.script", "yaml"), _faults, (b"faults:\n- fault: drop\n  at: 1\n  beds: [a]\n",)
    ),
    "hl7": Parser(
        ("ingest.live.hl7.message", "ingest.live.hl7.waveforms"), _hl7, (_WCM, _PLAIN, _WCM + _PLAIN)
    ),
    "mllp": Parser(("ingest.live.hl7.mllp",), _mllp, (b"\x0b" + _PLAIN + b"\x1c\r\x0b\x0b\x1c\x1c\r",)),
    "feed": Parser(
        ("ingest.live.feed", "ingest.live.timeline", "ingest.live.reassembly"),
        _feed,
        (bytes(range(120)),),
        # Ten pieces: more of them meet nothing new.
        120,
    ),
}
"""By name."""


def fuzz(name: str, runs: int, seed: int) -> dict[str, Any]:
    """Fuzz a parser in a process of its own.

    Returns
    -------
    dict
        How many inputs it took, in what time, the most memory, and what went wrong, if something did.
    """
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        for number, data in enumerate(PARSERS[name].seeds):
            Path(folder, f"seed-{number}").write_bytes(data)
        command = [sys.executable, "-m", "bench.fuzz", "--child", name]
        limits = [
            f"-runs={runs}",
            f"-seed={seed}",
            f"-max_len={PARSERS[name].longest}",
            f"-timeout={_TIMEOUT_S}",
        ]
        limits += [f"-rss_limit_mb={_MEMORY_MB}", f"-artifact_prefix={folder}/found-", "-print_final_stats=1"]
        done = subprocess.run(
            [*command, "--", *limits, folder], capture_output=True, text=True, errors="replace", check=False
        )
        stats = dict(re.findall(r"stat::(\w+):\s+(\d+)", done.stderr))
        found = [file.read_bytes().hex() for file in Path(folder).glob("found-*")]
        took = re.search(r"Done \d+ runs in (\d+) second", done.stderr)
        return {
            "parser": name,
            "inputs": int(stats.get("number_of_executed_units", 0)),
            "seconds": int(took[1]) if took else None,
            "peak_rss_mb": int(stats.get("peak_rss_mb", 0)),
            "failed": done.stderr[-3000:] if done.returncode else None,
            "input": found[0] if found else None,
        }


def _child(name: str, arguments: Sequence[str]) -> None:
    import atheris

    parser = PARSERS[name]
    with atheris.instrument_imports(include=list(parser.modules)):
        for module in parser.modules:
            importlib.import_module(module)
    atheris.Setup([sys.argv[0], *arguments], parser.make())
    atheris.Fuzz()


def _others(path: str, names: Collection[str]) -> list[dict[str, Any]]:
    # What an earlier run has found of other parsers: all of them take hours.
    if path == "-" or not Path(path).exists():
        return []
    rows: list[dict[str, Any]] = json.loads(Path(path).read_text())["rows"]
    return [row for row in rows if row["parser"] in PARSERS and row["parser"] not in names]


@click.command()
@click.argument("names", nargs=-1)
@click.option("--runs", default=1_000_000, show_default=True, type=click.IntRange(1), help="Inputs a parser.")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(1))
@click.option("--child", hidden=True)
@json_option
def main(names: tuple[str, ...], runs: int, seed: int, child: str | None, json_path: str | None) -> None:
    """Fuzz the parsers (all of them, or NAMES); exit code 1 if something is found.

    What the file of --json has of parsers that are not named stays there.

    \b
    python -m bench.fuzz
    python -m bench.fuzz messages frames --runs 10000
    """  # noqa: D301 (click needs the control character)
    if child is not None:
        _child(child, names)
        return
    if unknown := set(names) - set(PARSERS):
        raise click.UsageError(f"no parser {' '.join(sorted(unknown))}: there are {' '.join(PARSERS)}")
    rows = []
    for name in names or PARSERS:
        rows.append(fuzz(name, runs, seed))
        if rows[-1]["failed"]:
            click.echo(f"{name}: {rows[-1]['failed']}\ninput: {rows[-1]['input']}", err=True)
    columns = ("parser", "inputs", "seconds", "peak_rss_mb")
    click.echo("\n".join(table(columns, ([str(row[key]) for key in columns] for row in rows))))
    if json_path:
        rows += _others(json_path, {row["parser"] for row in rows})
        rows.sort(key=lambda row: list(PARSERS).index(row["parser"]))
        result = {"benchmark": "fuzz", "machine": machine(), "versions": versions(), "rows": rows}
        write_json(json.dumps(result, indent=1), json_path)
    if any(row["failed"] for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()

"""Records of data sets, downloaded from a server with PhysioNet's layout."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from ingest.datasets import DATASETS, fetch
from ingest.recordings import open_recording
from ingest.source import IngestError
from stream.bus import Bus
from stream.contract import SampleChunk
from stream.embedded import EmbeddedServer
from stream.topics import SAMPLES
from tests.command_line import assert_refused, run
from tests.ingest.wfdb_writing import random_digital, write_record

# Five requests for the signal of a record.
N = 160_000


class Files(BaseHTTPRequestHandler):
    """Files below a folder, with ranges; breaks off after so many bytes of signal."""

    root: Path
    budget: float
    asked: list[tuple[str, str, str]]

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(head=True)

    def do_GET(self) -> None:
        self._answer(head=False)

    def _answer(self, *, head: bool) -> None:
        file, wanted = self.root / self.path.lstrip("/"), self.headers.get("Range", "")
        self.asked.append((self.command, file.name, wanted))
        if not file.is_file():
            self.send_error(404)
            return
        data = file.read_bytes()
        begin, end = 0, len(data)
        if wanted:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            begin, end = int(first), min(len(data), int(last) + 1 if last else len(data))
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(data)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - begin))
        self.end_headers()
        if head:
            return
        part = data[begin:end]
        if file.suffix == ".dat":
            part = part[: int(min(len(part), type(self).budget))]
            type(self).budget -= len(part)
        self.wfile.write(part)
        if len(part) < end - begin:
            self.close_connection = True


@contextmanager
def served(root: Path) -> Iterator[type[Files]]:
    handler = type("Here", (Files,), {"root": root, "budget": float("inf"), "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    handler.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield handler
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def physionet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Files]]:
    """Serve record 100 of mitdb and record 1 of PTB-XL; keep what is downloaded in ``tmp_path / "kept"``."""
    root = tmp_path / "files"
    for folder, name, n in (
        ("mitdb/1.0.0", "100", N),
        ("ptb-xl/1.0.3/records500/00000", "00001_hr", 5000),
    ):
        (root / folder).mkdir(parents=True)
        write_record(root / folder, random_digital("16", n, 4), name=name)
    with served(root) as handler:
        monkeypatch.setenv("BEDSIDE_PHYSIONET_URL", handler.url)
        monkeypatch.setenv("BEDSIDE_DATASETS", str(tmp_path / "kept"))
        yield handler


def test_a_record_is_downloaded_once(physionet: type[Files], tmp_path: Path) -> None:
    shares: list[float] = []
    path = fetch("mitdb", None, shares.append)
    assert path == tmp_path / "kept" / "mitdb" / "1.0.0" / "100"
    original = open_recording(physionet.root / "mitdb" / "1.0.0" / "100")
    np.testing.assert_array_equal(open_recording(path).read(0, N), original.read(0, N))
    assert shares == sorted(shares)
    assert len(shares) == 5
    assert shares[-1] == 1.0
    physionet.asked.clear()
    assert fetch("mitdb", "100") == path
    assert physionet.asked == []


def test_a_download_that_broke_off_goes_on(physionet: type[Files]) -> None:
    physionet.budget = 600_000
    with pytest.raises(IngestError, match=r"cannot be downloaded .*goes on from there"):
        fetch("mitdb", "100")
    physionet.budget = float("inf")
    physionet.asked.clear()
    path = fetch("mitdb", "100")
    # What had come is not asked for again.
    asked = [
        int(wanted[6:].partition("-")[0])
        for _, name, wanted in physionet.asked
        if name == "100.dat" and wanted
    ]
    assert min(asked) >= 2 * 256 * 1024
    original = open_recording(physionet.root / "mitdb" / "1.0.0" / "100")
    np.testing.assert_array_equal(open_recording(path).read(0, N), original.read(0, N))


@pytest.mark.parametrize("record", ["1", "00001_hr", "records500/00000/00001_hr"])
def test_a_record_of_ptbxl_has_several_names(physionet: type[Files], record: str) -> None:
    assert fetch("ptbxl", record).parts[-3:] == ("records500", "00000", "00001_hr")


def test_where_records_lie() -> None:
    assert DATASETS["ptbxl"].path_of("21837_lr") == "records100/21000/21837_lr"


def test_the_command_downloads_and_sends(physionet: type[Files], redis_server: EmbeddedServer) -> None:
    quick = ("--speed", "100000", "--metrics-port", "0", "--redis", redis_server.url)
    result = run("replay", "--dataset", "ptbxl", "--record", "1", "--bed", "icu-1", *quick)
    assert result.returncode == 0, result.stderr

    async def sent() -> int:
        async with await Bus.connect(redis_server.url) as bus:
            await bus.declare(SAMPLES)
            return sum([len(SampleChunk.decode(entry.value).samples) async for entry in bus.kept(SAMPLES)])

    assert asyncio.run(sent()) == 5000


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--dataset", "mitdb", "--record", "999"), 1, "mitdb/1.0.0/999.hea: there is no such file"),
        (("--dataset", "mitdb", "--record", "../x"), 1, "they are called 100 to 234"),
        (("--record", "100"), 2, "name a PATH to replay, or a --dataset"),
        (("--dataset", "mitdb", "x.npy"), 2, "name a PATH to replay, or a --dataset"),
    ],
)
def test_what_cannot_be_is_refused(
    physionet: type[Files], options: tuple[str, ...], code: int, says: str
) -> None:
    assert_refused(run("replay", *options), says, code=code)


def test_without_a_network_it_says_so(tmp_path: Path) -> None:
    result = run(
        "replay",
        "--dataset",
        "mitdb",
        BEDSIDE_PHYSIONET_URL="http://127.0.0.1:9",
        BEDSIDE_DATASETS=str(tmp_path),
    )
    assert_refused(
        result, "http://127.0.0.1:9/mitdb/1.0.0/100.hea: cannot be downloaded (Connection refused)"
    )

"""The command ``replay``: many beds from one record, device time, faults; what it says and refuses."""

from __future__ import annotations

import asyncio
import subprocess
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from ingest.recordings import open_recording
from stream.bus import Bus
from stream.contract import SampleChunk
from stream.embedded import EmbeddedServer
from stream.topics import SAMPLES
from tests.command_line import assert_refused, run
from tests.ingest.wfdb_writing import edit, write_record

FS = 250
# So fast that nobody waits, and still not as fast as possible, which waits for a worker.
QUICK = ("--speed", "100000", "--metrics-port", "0")


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a minute of two leads, with a beat each second exactly, recorded at a known time."""
    second = np.exp(-0.5 * ((np.arange(FS) - 100) / 4) ** 2) * 1000
    beats = np.tile(np.rint(second).astype(np.int64), 30)
    folder = tmp_path_factory.mktemp("record")
    path = write_record(folder, np.stack([beats, beats // 2], axis=1), fs=FS, leads=("II", "V1"))
    edit(path.with_suffix(".hea"), "rec 2 250 7500", "rec 2 250 7500 10:00:00 01/02/2020")
    return path


def replayed(
    server: EmbeddedServer, prefix: str, *arguments: object
) -> tuple[subprocess.CompletedProcess[str], dict[str, list[SampleChunk]]]:
    result = run("replay", *arguments, *QUICK, "--redis", server.url, BEDSIDE_PREFIX=prefix)

    async def sent() -> dict[str, list[SampleChunk]]:
        beds = defaultdict(list)
        async with await Bus.connect(server.url, prefix=prefix) as bus:
            await bus.declare(SAMPLES)
            async for entry in bus.kept(SAMPLES):
                chunk = SampleChunk.decode(entry.value)
                beds[chunk.header.bed].append(chunk)
        return beds

    return result, asyncio.run(sent())


def test_beds_of_one_record_do_not_beat_together(redis_server_module: EmbeddedServer, record: Path) -> None:
    arguments = (record, "--loop", "--beds", 6, "--seconds", 5, "--bed", "icu")
    result, beds = replayed(redis_server_module, "a:", *arguments)
    assert result.returncode == 0, result.stderr
    assert sorted(beds) == [f"icu-{number}" for number in range(1, 7)]
    signals = {bed: np.concatenate([c.samples for c in chunks])[:, 0] for bed, chunks in beds.items()}
    assert {len(signal) for signal in signals.values()} == {5 * FS}
    phases = {bed: int(signal[:FS].argmax()) for bed, signal in signals.items()}
    assert phases["icu-1"] == 100
    assert len(set(phases.values())) == 6
    for chunks in beds.values():
        assert [chunk.header.n0 for chunk in chunks] == list(range(0, 5 * FS, 50))
        assert chunks[-1].header.last

    _, again = replayed(redis_server_module, "b:", *arguments, "--seed", 0)
    _, other = replayed(redis_server_module, "c:", *arguments, "--seed", 1)
    same = [bed for bed in beds if (again[bed][0].samples == beds[bed][0].samples).all()]
    assert same == list(beds)
    assert (other["icu-2"][0].samples != beds["icu-2"][0].samples).any()


def test_device_time_as_it_was_recorded(redis_server_module: EmbeddedServer, record: Path) -> None:
    arguments = (record, "--start", 3, "--stop", 5, "--device-time", "recorded")
    _, beds = replayed(redis_server_module, "d:", *arguments)
    # 2020-02-01 10:00:03 UTC.
    assert beds["rec"][0].header.t0 == 1_580_551_203_000_000_000
    assert beds["rec"][-1].header.t0 == 1_580_551_204_800_000_000


def test_the_leads_of_an_array_are_told(redis_server_module: EmbeddedServer, tmp_path: Path) -> None:
    np.save(tmp_path / "holter.npy", np.full((5 * FS, 2), 250, np.int16))
    arguments = (
        tmp_path / "holter.npy",
        "--fs",
        FS,
        "--leads",
        "II,V5",
        "--loop",
        "--beds",
        2,
        "--seconds",
        5,
    )
    _, beds = replayed(redis_server_module, "g:", *arguments)
    assert {chunks[0].header.leads for chunks in beds.values()} == {("II", "V5")}
    assert len(beds) == 2


def test_faults_are_told_and_happen(
    redis_server_module: EmbeddedServer, record: Path, tmp_path: Path
) -> None:
    script = tmp_path / "f.yaml"
    script.write_text(
        "seed: 3\nfaults:\n- {fault: disconnect, at: 10, for: 5}\n"
        "- {fault: drop, at: 20, for: 1, beds: [rec]}"
    )
    result, beds = replayed(redis_server_module, "e:", record, "--faults", script)
    assert result.returncode == 0
    assert result.stderr.splitlines()[:7] == [
        f"bedside: faults of {script}, seed 3:",
        "bedside:   disconnected at 10 s for 5 s; all beds",
        "bedside:   drop at 20 s for 1 s; rec",
        "bedside: rec at 10 s begins: disconnected",
        "bedside: rec at 15 s ends: disconnected",
        "bedside: rec at 20 s begins: drop",
        "bedside: rec at 21 s ends: drop",
    ]
    assert "chunks that faults happened to: drop 5" in result.stderr
    sent = np.concatenate([chunk.samples for chunk in beds["rec"]])
    whole = open_recording(record).read(0, 7500)
    np.testing.assert_array_equal(sent, np.delete(whole, np.r_[2500:3750, 5000:5250], axis=0))


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--beds", "3"], 2, "--beds and --seconds go with --loop"),
        (["--faults", "nothing.yaml"], 1, "nothing.yaml: No such file"),
    ],
)
def test_what_makes_no_sense_is_refused(record: Path, options: list[str], code: int, says: str) -> None:
    assert_refused(run("replay", record, *options), says, code=code)


def test_a_recording_without_a_time_has_none(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((5000, 12)))
    result = run("replay", tmp_path / "x.npy", "--fs", 500, "--device-time", "recorded")
    assert_refused(result, "x does not say when it was recorded")

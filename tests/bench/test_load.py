"""What the load generator sends is what a bed would send, when it would."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from bench.load import (
    CHUNK_NS,
    SPREAD_NS,
    LoadPlan,
    _feeds,
    bed_name,
    bed_number,
    phase_ns,
    schedule,
    send,
)
from bench.signals import EPISODE_S, STORM_S, WARD_S, Playlist, recorded, simulated
from ingest.source import IngestError
from stream.contract import SampleChunk
from stream.embedded import EmbeddedServer
from stream.topics import SAMPLES, TOPICS
from stream.transport.layout import partition_of, stream_key


@given(st.integers(1, 200), st.integers(1, 12))
def test_every_chunk_is_due_once_when_its_last_sample_has_been_acquired(beds: int, chunks: int) -> None:
    due = list(schedule(beds, chunks))
    assert [at for at, _, _ in due] == sorted(at for at, _, _ in due)
    assert sorted((bed, seq) for _, bed, seq in due) == [(b, s) for b in range(beds) for s in range(chunks)]
    assert all(at == phase_ns(bed, beds) + (seq + 1) * CHUNK_NS for at, bed, seq in due)


def test_beds_begin_evenly_over_a_second() -> None:
    phases = [phase_ns(number, 64) for number in range(64)]
    assert phases[0] == 0
    assert set(np.diff(phases)) == {SPREAD_NS // 64}


def test_names_and_numbers_of_beds_belong_together() -> None:
    assert [bed_number(bed_name(number)) for number in range(100)] == list(range(100))


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    plan = LoadPlan("unix:///s", "p:", 3, 5, 7, 300.0, ("a", "b"), "accepted.npy")
    plan.write(tmp_path / "plan.json")
    assert LoadPlan.read(tmp_path / "plan.json") == plan


def playlist(number: int) -> Playlist:
    # A percent sign in a name must not be taken for a place to fill in.
    samples = np.arange(2 * 3, dtype="<i2").reshape(3, 2) + 100 * number
    return Playlist(15.0, ("II", "V%d"), (1000.0, 500.0), tuple(samples.tobytes() for _ in range(4)))


def test_what_arrives_are_chunks_of_continuous_feeds(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    plan = LoadPlan(redis_server.url, "p:", 3, 5, 0, STORM_S, (), str(tmp_path / "accepted.npy"))
    begun: list[int] = []
    report = send(plan, [playlist(0), playlist(1)], begun.append)
    accepted = np.load(plan.accepted)
    assert report["chunks"] == 15
    assert report["sent"] == [(15, 15.0)] * 3
    assert report["late"]["n"] == 15
    client = redis.Redis.from_url(redis_server.url)
    for number in range(3):
        key = bed_name(number).encode()
        stream = stream_key("p:", SAMPLES, partition_of(key, TOPICS[SAMPLES].partitions))
        entries = [fields for _, fields in client.xrange(stream) if fields[b"k"] == key]
        chunks = [SampleChunk.decode(fields[b"v"]) for fields in entries]
        headers = [chunk.header for chunk in chunks]
        assert [header.seq for header in headers] == [0, 1, 2, 3, 4]
        assert [header.n0 for header in headers] == [0, 3, 6, 9, 12]
        assert [header.last for header in headers] == [False] * 4 + [True]
        assert {header.leads for header in headers} == {("II", "V%d")}
        due = [begun[0] + phase_ns(number, 3) + (seq + 1) * CHUNK_NS for seq in range(5)]
        assert [header.ingest_ns for header in headers] == due
        assert [header.t0 + CHUNK_NS for header in headers] == due
        assert (accepted[number] >= due).all()
        np.testing.assert_array_equal(chunks[0].samples[:, 1], np.array([1, 3, 5]) + 100 * (number % 2))
    client.close()


def test_at_speed_signal_passes_faster_than_time(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    plan = LoadPlan(redis_server.url, "p:", 2, 7, 0, STORM_S, (), str(tmp_path / "accepted.npy"), speed=8.0)
    begun: list[int] = []
    report = send(plan, [playlist(0)], begun.append)
    assert report["chunks"] == 14
    client = redis.Redis.from_url(redis_server.url)
    entries = [entry for key in client.keys("p:*") for entry in client.xrange(key)]
    client.close()
    headers = [SampleChunk.decode(fields[b"v"]).header for _, fields in entries]
    assert {header.pace for header in headers} == {8.0}
    for header in headers:
        first = begun[0] + phase_ns(bed_number(header.bed), 2)
        # The device's clock goes with its signal, ours does not.
        assert header.t0 == first + header.seq * CHUNK_NS
        assert header.ingest_ns - begun[0] == (header.t0 + CHUNK_NS - begun[0]) // 8
    took_ns = np.load(plan.accepted).max() - begun[0]
    assert took_ns >= (phase_ns(1, 2) + 7 * CHUNK_NS) / 8


def test_simulated_patients_differ_and_fall_ill_as_often_as_is_wanted() -> None:
    patients = simulated(0, WARD_S)
    assert {len(patient.chunks) for patient in patients} == {EPISODE_S * 5}
    assert {len(patient.chunks[0]) for patient in patients} == {100 * 12 * 2}
    assert len({patient.chunks for patient in patients}) == len(patients)
    (patient, *_) = patients
    assert patient.period == WARD_S * 5
    played = [patient.chunk(place) for place in range(2 * patient.period)]
    # The first beat of the tachycardia is due 8 s into an episode; before, the patient is as well as ever.
    ill = [place for place, chunk in enumerate(played) if chunk not in set(patient.chunks)]
    assert {place // patient.period for place in ill} == {0, 1}
    assert {place % patient.period < EPISODE_S * 5 for place in ill} == {True}
    assert 7 * 5 <= min(ill) <= 8 * 5
    assert played[EPISODE_S * 5 : 2 * EPISODE_S * 5] == list(patient.chunks)


def test_a_ward_falls_ill_evenly() -> None:
    beds = 50
    plan = LoadPlan("unix:///s", "p:", beds, 1500, 0, WARD_S, (), "accepted.npy")
    (well, ill) = playlist(0), playlist(1)
    patient = replace(well, episode=ill.chunks, every=1500)
    feeds = _feeds(plan, [patient], 0)
    onsets = [next(seq for seq in range(1500) if feed.chunk(seq).endswith(ill.chunks[0])) for feed in feeds]
    assert set(np.diff(sorted(onsets))) == {1500 // beds}


@pytest.mark.data
def test_recordings_are_played_as_they_are(data_dir: Path) -> None:
    (played,) = recorded([str(data_dir / "ptb-xl/records500/00000/00001_hr")])
    assert (played.fs, len(played.leads), played.samples_per_chunk) == (500.0, 12, 100)
    assert len(played.chunks) == 300


def test_a_rate_without_whole_samples_in_a_chunk_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.npy"
    np.save(path, np.zeros((2000, 12)))
    with pytest.raises(IngestError):
        recorded([str(path)])


def test_a_report_is_json(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    plan = LoadPlan(redis_server.url, "p:", 1, 1, 0, STORM_S, (), str(tmp_path / "accepted.npy"))
    assert json.loads(json.dumps(send(plan, [playlist(0)])))["chunks"] == 1

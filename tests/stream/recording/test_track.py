"""Whatever a feed does and whenever the recorder dies: each sample is recorded once, in its place."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.contract import INVALID, SampleChunk
from stream.recording.names import folder_of
from stream.recording.repair import repair
from stream.recording.store import Recordings
from stream.recording.track import Track
from tests.stream.recording.making import FS, HOUR, T0, chunk, signal

# Half a second before the full hour: a history of some seconds goes over it.
_START = (T0 // HOUR + 1) * HOUR - 5 * 10**8

steps = st.lists(
    st.one_of(
        st.tuples(st.just("chunk"), st.integers(1, 250)),
        st.tuples(st.just("lost"), st.integers(1, 400)),
        st.tuples(st.just("lost"), st.integers(4900, 5200)),
        st.tuples(st.just("repeat"), st.integers(1, 3)),
        st.tuples(st.just("strange"), st.integers(0, 2)),
        st.tuples(st.just("sync"), st.just(0)),
        st.tuples(st.just("kill"), st.just(0)),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_any_history_is_recorded_once_and_whole(history: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        folder = root / folder_of("icu-1")
        track, unsynced, sent = Track(folder), [], []
        n = now = 0

        def resumed() -> Track:
            again = Track(folder)
            for found in repair(root):
                again.resume(found.record, found.begin, found.end)
            return again

        for what, size in history:
            now += 1
            taken: list[SampleChunk] = []
            if what == "chunk":
                taken = [chunk(n, size, t0=_START + round(n * 1e9 / FS))]
                n += size
                sent += taken
            elif what == "lost":
                n += size
            elif what == "repeat":
                taken = sent[-size:]
            elif what == "strange" and sent:
                # Of the session, by its name, and far ahead in it.
                header = sent[-1].header
                changes = ({"fs": 2 * FS}, {"leads": tuple("xyz"[: len(header.leads)])}, {"n0": 0})[size]
                strange = header.model_copy(update={"seq": header.seq + 1_000_000} | changes)
                taken = [SampleChunk(strange, sent[-1].samples)]
            elif what == "sync":
                track.sync(now)
                # The position is not noted while something waits for a late chunk.
                unsynced = unsynced if track.is_waiting else []
            elif what == "kill":
                # What was not on the disk comes again from the server.
                track, taken, unsynced = resumed(), unsynced, []
            for one in taken:
                track.take(one, now)
            unsynced += taken
        track.sync(now, stop=True)

        expected = np.full((n, 3), INVALID, np.int16)
        for one in sent:
            expected[one.header.n0 : one.end] = signal(one.header.n0, one.end)
        recorded = np.full((n, 3), INVALID, np.int16)
        times = np.zeros(n, np.int64)
        covered = np.zeros(n, np.int64)
        for segment in Recordings(root).segments("icu-1"):
            place = slice(segment.begin.n0, segment.end)
            recorded[place] = segment.read(segment.begin.n0, segment.end)
            times[place] = segment.times(segment.begin.n0, segment.end)
            covered[place] += 1
            hours = times[place] // HOUR
            assert hours[0] == hours[-1] or hours[-1] * HOUR - times[segment.begin.n0] < 10**9
        np.testing.assert_array_equal(recorded, expected)
        assert covered.max(initial=0) <= 1
        for one in sent:
            assert covered[one.header.n0 : one.end].all()
            assert times[one.header.n0] == one.header.t0

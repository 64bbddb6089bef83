"""A part of a recording as a recording of its own."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import wfdb

from stream.contract import Validity
from stream.recording.export import export
from stream.recording.store import Recordings
from stream.recording.writer import SegmentWriter
from tests.command_line import assert_refused, run
from tests.stream.recording.making import HOUR, T0, signal, write_segment

S = 1_000_000_000


def test_samples_times_and_flags_of_a_part_over_the_full_hour(tmp_path: Path) -> None:
    root = tmp_path / "all"
    root.mkdir()
    # Two segments of a session that meet at the full hour, then another session.
    first_t0 = (T0 // HOUR + 1) * HOUR - 20 * S
    off = (Validity.OFF, Validity.OK, Validity.OK)
    record = write_segment(root / "icu-1", 10_000, t0=first_t0, end=False)
    begin = Recordings(root).segments("icu-1")[0].begin
    assert record.parent == root / "icu-1"
    after = SegmentWriter(root / "icu-1", begin.model_copy(update={"n0": 10_000, "t0": first_t0 + 20 * S}))
    after.append(10_000, first_t0 + 20 * S, signal(10_000, 12_000), (Validity.OK,) * 3)
    after.append(12_000, first_t0 + 24 * S, signal(12_000, 12_500), off)
    after.append(12_500, first_t0 + 25 * S, signal(12_500, 15_000), (Validity.OK,) * 3)
    after.sync(T0)
    write_segment(root / "icu-1", 5_000, session="other", t0=first_t0 + 40 * S)
    whole = Recordings(root)
    t0, t1 = first_t0 + 15 * S, first_t0 + 45 * S
    records = export(whole, "icu-1", t0, t1, tmp_path / "icu-1")
    assert len(records) == 2
    part = Recordings(tmp_path)
    for one, other in zip(part.read("icu-1", 0, 2**62), whole.read("icu-1", t0, t1), strict=True):
        assert (one.session, one.n0, one.leads) == (other.session, other.n0, other.leads)
        np.testing.assert_array_equal(one.t_ns, other.t_ns)
        np.testing.assert_array_equal(one.millivolts, other.millivolts)
    assert np.isnan(part.read("icu-1", 0, 2**62)[0].millivolts[:, 0]).sum() == 500
    assert (wfdb.rdrecord(str(records[0]), physical=False).d_signal == signal(7_500, 15_000)).all()


def test_nothing_to_export_is_said(tmp_path: Path) -> None:
    write_segment(tmp_path / "icu-1", 1_000)
    at = datetime.fromtimestamp(T0 / 1e9 - 3600, UTC).isoformat()
    until = datetime.fromtimestamp(T0 / 1e9 - 3590, UTC).isoformat()
    span = ("--from", at, "--until", until, "--to", tmp_path / "x")
    refused = run("record", "export", "--bed", "icu-1", "--out", tmp_path, *span)
    assert_refused(refused, "nothing was recorded of icu-1 in this time")
    wrong = run("record", "export", "--bed", "icu-1", "--from", "noon", "--until", until, "--to", "x")
    assert_refused(wrong, "'noon' is no time", code=2)

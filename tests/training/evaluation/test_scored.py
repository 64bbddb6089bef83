from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import wfdb

import bedside
from models.bundle import list_bundles
from tests.training.evaluation.conftest import stand_in
from training.evaluation.scored import Change, score_recordings
from training.recordings import Entry, read_index


def labelled(index: Path) -> list[Entry]:
    return [entry for entry in read_index(index) if entry.label is not None]


@pytest.mark.skipif("cae-100hz" not in list_bundles(), reason="the model is not shipped")
def test_a_score_is_the_one_that_analyze_gives(made_up_index: Callable[[], Path]) -> None:
    entries = labelled(made_up_index())[:3]
    found = score_recordings(entries, bedside.load_model("cae-100hz"))
    expected = [bedside.analyze(entry.path, model="cae-100hz").record_score for entry in entries]
    np.testing.assert_allclose(found.score, expected, rtol=1e-6)


def test_batches_change_nothing_and_hold_windows_of_many_recordings(
    made_up_index: Callable[[], Path],
) -> None:
    entries = labelled(made_up_index())
    one, many = stand_in(max_batch=1), stand_in(max_batch=50)
    first, second = score_recordings(entries, one), score_recordings(entries, many)
    np.testing.assert_array_equal(first.score, second.score)
    np.testing.assert_array_equal(first.above, second.above)
    # 17 windows of 2 s in each of 17 recordings of 10 s.
    assert sum(many.batches) == sum(one.batches) == 17 * 17
    assert set(many.batches[:-1]) == {50}


def test_what_cannot_be_scored_is_named_and_the_rest_goes_on(made_up_index: Callable[[], Path]) -> None:
    index = made_up_index()
    folder = index.parent
    first, second, third, fourth, fifth = labelled(index)[:5]
    second.path.unlink()
    third.path.with_suffix(".hea").write_text("not a header")
    for entry, millivolts in ((fourth, np.zeros((5000, 2))), (fifth, np.ones((500, 2)))):
        wfdb.wrsamp(
            entry.path.stem,
            fs=500,
            units=["mV"] * 2,
            sig_name=["II", "V1"],
            p_signal=millivolts,
            fmt=["16"] * 2,
            write_dir=str(folder),
        )
    done: list[float] = []
    found = score_recordings([first, second, third, fourth, fifth], stand_in(), on_done=done.append)
    assert found.entries == (first,)
    assert len(found.score) == len(found.above) == 1
    assert done == [1, 2, 3, 4, 5]
    reasons = {skipped.entry.record: skipped.why for skipped in found.skipped}
    assert list(reasons) == [entry.record for entry in (second, third, fourth, fifth)]
    assert all(str(folder) not in why[:20] for why in reasons.values())
    assert reasons[fourth.record] == "no window can be scored: flat (17)"
    assert reasons[fifth.record] == "1.0 s is shorter than one window of the model (2 s)"


def test_a_source_too_slow_for_the_filter_is_skipped(tmp_path: Path) -> None:
    np.save(tmp_path / "slow.npy", np.zeros((20, 12), np.int16))
    index = tmp_path / "index.csv"
    index.write_text("path,label,offset,samples,fs\nslow.npy,1,0,20,0.9\n")
    found = score_recordings(read_index(index), stand_in())
    assert [skipped.why for skipped in found.skipped] == ["0.9 Hz is too slow for the model's filter"]


def test_shares_above_the_stored_quantiles_are_those_of_the_windows(
    made_up_index: Callable[[], Path],
) -> None:
    session = stand_in()
    found = score_recordings(labelled(made_up_index())[:2], session)
    assert session.manifest.thresholds["fp32"].quantiles == (-12.0, 0.5, 4.0)
    np.testing.assert_array_equal(found.above, [[1.0, 0.0, 0.0]] * 2)


def test_a_changed_recording_is_scored_beside_the_one_it_was(made_up_index: Callable[[], Path]) -> None:
    entries = labelled(made_up_index())[:2]
    same = Change("same", "none", lambda signal: signal)
    shorter = Change("shorter", "none", lambda signal: replace(signal, millivolts=signal.millivolts[:1500]))
    cannot = Change("cannot", "none", lambda signal: None)
    found = score_recordings(entries, stand_in(), [same, shorter, cannot])
    np.testing.assert_array_equal(found.changed["same"], found.score)
    assert np.isfinite(found.changed["shorter"]).all()
    assert (found.changed["shorter"] != found.score).all()
    assert np.isnan(found.changed["cannot"]).all()
    assert found.skipped == ()

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bench.disturbances import DISTURBANCES, MOTION, MUSCLE, Disturbance
from bench.signal_quality import IN_BEATS, Count, clean_of, count_beats, count_disturbed, main
from tests.training.conftest import made_up_signal
from training.recordings import Signal, read_index


def counted(disturbance: Disturbance) -> list[Count]:
    counts = [Count() for _ in disturbance.levels]
    count_disturbed(made_up_signal(0), [disturbance], [counts])
    return counts


@pytest.mark.parametrize("disturbance", DISTURBANCES, ids=lambda disturbance: disturbance.name)
def test_the_worse_the_more_often_it_is_named(disturbance: Disturbance) -> None:
    counts = counted(disturbance)
    assert len({count.n for count in counts}) == 1
    assert counts[0].n > 0
    assert counts[0].right == 0, "the slightest is none"
    if disturbance is not MOTION:
        assert counts[-1].right >= 0.6 * counts[-1].n
        assert max(counts[-1].unusable, counts[-1].noisy) >= 0.6 * counts[-1].n
        assert counts[-1].index < 0.6 * counts[0].index


def test_noise_has_the_ratio_that_is_stated() -> None:
    # A wave that the band-pass lets pass, of variance 1/2, on an offset that it takes away.
    wave = np.sin(2 * np.pi * 10 * np.arange(10_000) / 500) + 3
    clean = clean_of(Signal(500.0, ("II",), wave[:, np.newaxis]))
    for snr_db in (12.0, 0.0, -6.0):
        x, inside = MUSCLE.apply(clean, snr_db, np.random.default_rng(0))
        assert inside.all()
        assert 10 * np.log10(0.5 / (x - clean.millivolts).var()) == pytest.approx(snr_db, abs=0.3)


@pytest.mark.parametrize("disturbance", DISTURBANCES, ids=lambda disturbance: disturbance.name)
def test_what_is_not_disturbed_stays_as_it_is(disturbance: Disturbance) -> None:
    clean = clean_of(made_up_signal(0, seconds=20.0))
    x, inside = disturbance.apply(clean, disturbance.levels[-1], np.random.default_rng(0))
    if disturbance is MOTION:
        # A burst rises and falls beyond where it counts, and ends after 4 s at the latest.
        assert (x == clean.millivolts).mean() >= 0.6
    elif "step" not in disturbance.name:
        np.testing.assert_array_equal(x[~inside], clean.millivolts[~inside])


def index_of(data_dir: Path, folder: Path, records: set[str]) -> Path:
    """Write an index of a few recordings where they lie."""
    with (data_dir / "index.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["record"] in records]
    path = folder / "index.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"path": str(data_dir / row["path"])} for row in rows)
    return path


@pytest.mark.data
def test_real_recordings_are_disturbed_and_rated_as_they_are(data_dir: Path, tmp_path: Path) -> None:
    index_of(data_dir, tmp_path, {"00001_hr", "00002_hr", "a170s", "a223l"})
    path = tmp_path / "found.json"
    done = CliRunner().invoke(main, [str(tmp_path), "--json", str(path)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "| muscle noise, 20 to 150 Hz | `noise` |" in done.output
    found = json.loads(path.read_text())
    assert found["recordings"] == 2
    of = {(row["disturbance"], row["level"]): row for row in found["disturbed"]}
    assert of["powerline, 50 Hz", 1.0]["right"] == 1.0
    assert of[MUSCLE.name, 24.0]["unusable"] < 0.05
    untouched = {row["dataset"]: row for row in found["untouched"]}
    assert untouched["ptb-xl"]["n"] == 2 * 10 * 12
    assert untouched["ptb-xl"]["unusable"] < 0.01
    assert found["beats"] == [], "none is annotated"
    assert found["machine"]["cpu"]


@pytest.mark.data
def test_beats_are_counted_with_noise_and_without(data_dir: Path, tmp_path: Path) -> None:
    (entry,) = read_index(index_of(data_dir, tmp_path, {"100"}))
    quiet, *noisy = count_beats(entry, seconds=20.0)
    assert quiet["with_quality"] == quiet["without"] == {"tp": 23, "fp": 0, "fn": 0}
    assert len(noisy) == 2 * sum(len(disturbance.levels) for disturbance in IN_BEATS)
    loudest = next(row for row in noisy if (row["snr_db"], row["leads"]) == (-6.0, "all"))
    assert loudest["seconds_unusable"] >= 0.8 * loudest["seconds"]
    assert loudest["with_quality"]["tp"] < 8


def test_the_test_split_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "index.csv").write_text("path,label,split\nr1,0,test\nr2,1,test\n")
    done = CliRunner().invoke(main, [str(tmp_path)])
    assert done.exit_code == 1
    assert "no labelled recordings of the splits train and val" in done.output


def test_without_a_folder_it_says_what_to_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BEDSIDE_DATA", raising=False)
    done = CliRunner().invoke(main, [])
    assert done.exit_code == 1
    assert "BEDSIDE_DATA" in done.output

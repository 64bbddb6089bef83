"""The page of an alarm: its size, its scale, and that everything on it is drawn."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from monitor.report.strip import write_strip
from stream.snapshots.hindsight import make_snapshot
from stream.snapshots.store import Snapshot
from tests.monitor.report.test_report import red_pixels
from tests.stream.snapshots.test_hindsight import MANIFEST, chunks, due, make, signal

PIXELS_PER_MM = 6


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return make(due(40, 45), chunks(signal(60)))


def picture(path: Path, snapshot: Snapshot) -> np.ndarray:
    write_strip(path, snapshot, "png")
    return matplotlib.image.imread(path, format="png")


def paper(drawn: np.ndarray) -> np.ndarray:
    """Return what lies on the ECG paper of every page: its upper 60 mm."""
    top, left = 40 * PIXELS_PER_MM, 14 * PIXELS_PER_MM
    return drawn[top : top + 60 * PIXELS_PER_MM, left : left + 270 * PIXELS_PER_MM]


def period(drawn: np.ndarray, axis: int) -> int:
    """Return at which distance, in pixels, the lines of large squares repeat along an axis."""
    profile = paper(drawn)[..., 2].mean(axis=1 - axis)
    profile = profile - profile.mean()
    lags = np.arange(20, 45)
    return int(lags[np.argmax([np.mean(profile[lag:] * profile[:-lag]) for lag in lags])])


def test_the_picture_is_an_a4_page_true_to_scale(tmp_path: Path, snapshot: Snapshot) -> None:
    drawn = picture(tmp_path / "page", snapshot)
    assert drawn.shape[:2] == (210 * PIXELS_PER_MM, 297 * PIXELS_PER_MM)
    # 5 mm of paper.
    assert period(drawn, 1) == 5 * PIXELS_PER_MM
    assert red_pixels(paper(drawn)) > 50


def test_the_pdf_is_an_a4_page(tmp_path: Path, snapshot: Snapshot) -> None:
    write_strip(tmp_path / "page", snapshot, "pdf")
    data = (tmp_path / "page").read_bytes()
    assert data.startswith(b"%PDF")
    ((width, height),) = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", data)
    points_per_mm = 72 / 25.4
    assert float(width) == pytest.approx(297 * points_per_mm, abs=0.01)
    assert float(height) == pytest.approx(210 * points_per_mm, abs=0.01)


def test_the_model_is_what_is_red(tmp_path: Path, snapshot: Snapshot) -> None:
    bare = make_snapshot(due(40, 45), chunks(signal(60)), None, MANIFEST, 0)
    assert red_pixels(paper(picture(tmp_path / "whole", snapshot))) > 50
    assert red_pixels(paper(picture(tmp_path / "bare", bare))) == 0


@pytest.mark.parametrize(
    "unusual",
    [
        # Cut at its beginning: the onset is not on the page.
        make(due(40, 110), chunks(signal(125), 0.5)),
        # Of the first seconds of a feed, and shorter than the page.
        make(due(2, 3), chunks(signal(7))),
        make(due(40, 45), chunks(signal(60), leads=("a", "b", "c"))),
        make(due(40, 45), []),
    ],
    ids=["cut", "short", "unknown leads", "no samples"],
)
def test_every_snapshot_can_be_drawn(tmp_path: Path, unusual: Snapshot) -> None:
    drawn = picture(tmp_path / "page", unusual)
    assert drawn.shape[:2] == (210 * PIXELS_PER_MM, 297 * PIXELS_PER_MM)

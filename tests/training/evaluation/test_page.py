from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.browser import needs_browser, open_page
from tests.stream.synthetic import StandIn
from tests.training.evaluation.conftest import entry, stand_in
from training.evaluation.examples import highest_normals, lowest_abnormals
from training.evaluation.page import write_html
from training.evaluation.robustness import changes
from training.evaluation.scored import Scored, Skipped, score_recordings
from training.evaluation.summary import summarise
from training.recordings import read_index

# A megabyte of Bokeh in each page, and six recordings are analysed once more.
pytestmark = pytest.mark.slow

HOSTILE = "</script><script>alert(1)</script>"


@pytest.fixture
def measured(made_up_index: Callable[[], Path]) -> tuple[Scored, StandIn, Path]:
    index = made_up_index()
    session = stand_in(threshold=-8.0)
    return score_recordings(read_index(index), session, changes(session.manifest)[-1:]), session, index


def write(
    path: Path, measured: tuple[Scored, StandIn, Path], *, robustness: bool = True, skipped: int = 1
) -> str:
    found, session, index = measured
    found = Scored(
        found.entries,
        found.score,
        found.above,
        found.changed,
        (Skipped(entry(HOSTILE), "not found"),) * skipped,
    )
    asked = changes(session.manifest)[-1:] if robustness else None
    evaluation = summarise(found, session, index, changes=asked, resamples=50)
    write_html(path, evaluation, found, session, index)
    return path.read_text(encoding="utf-8")


def test_the_page_needs_nothing_else_and_no_name_breaks_it(
    measured: tuple[Scored, StandIn, Path], tmp_path: Path
) -> None:
    html = write(tmp_path / "page.html", measured)
    assert "Research software. Not a medical device." in html
    assert not re.search(r"<(?:script|link|img)[^>]*(?:src|href)\s*=", html)
    assert HOSTILE not in html
    assert "alert(1)" in html
    assert "default-src &#39;none&#39;" in html or "default-src 'none'" in html


def test_the_worst_recordings_are_drawn_the_worst_first(measured: tuple[Scored, StandIn, Path]) -> None:
    found, session, _ = measured
    normals, abnormals = highest_normals(found, session), lowest_abnormals(found, session)
    assert len(normals) == 4
    # Of three abnormal recordings one is abnormal in rhythm only.
    assert len(abnormals) == 2
    assert [example.score for example in normals] == sorted(found.score[~found.abnormal], reverse=True)[:4]
    assert [example.entry.label for example in (*normals, *abnormals)] == [0] * 4 + [1] * 2
    assert abnormals[0].score <= abnormals[1].score
    traces = normals[0].traces
    assert traces.signal.shape == traces.reconstruction.shape
    assert len(traces.leads) == 12
    assert normals[0].part.end_s - normals[0].part.start_s == pytest.approx(10.0)


def test_a_recording_that_has_gone_is_not_drawn(measured: tuple[Scored, StandIn, Path]) -> None:
    found, session, _ = measured
    worst = highest_normals(found, session)[0].entry
    worst.path.unlink()
    assert [example.entry for example in highest_normals(found, session)].count(worst) == 0
    assert len(highest_normals(found, session)) == 4


@pytest.mark.page
@needs_browser
def test_a_browser_draws_every_figure_without_an_error(
    measured: tuple[Scored, StandIn, Path], tmp_path: Path
) -> None:
    path = tmp_path / "page.html"
    write(path, measured)
    with open_page() as page:
        page.goto(path.as_uri())
        page.wait_for_function("() => window.Bokeh?.documents?.[0]?.is_idle ?? false")
        drawn = page.evaluate(
            "() => Bokeh.documents[0].roots().map((plot) => [plot.inner_width, plot.inner_height])"
        )
        # Four figures, two of robustness, and the strips of six recordings; no diagnosis has five.
        assert len(drawn) == 4 + 2 + 6
        assert all(width > 300 and height > 20 for width, height in drawn), drawn
        assert page.locator("[data-root-id]").count() == len(drawn)
        assert page.evaluate("() => document.documentElement.scrollWidth <= 1440")
        assert page.locator("#figures tbody tr").count() >= 4


@pytest.mark.parametrize("keep", ["normal", "abnormal"])
def test_a_page_of_one_class_has_no_curve_and_is_written(
    keep: str, measured: tuple[Scored, StandIn, Path], tmp_path: Path
) -> None:
    found, session, index = measured
    chosen = found.abnormal == (keep == "abnormal")
    part = Scored(
        tuple(entry for entry, kept in zip(found.entries, chosen, strict=True) if kept),
        found.score[chosen],
        found.above[chosen],
        {},
        (),
    )
    html = write(tmp_path / "page.html", (part, session, index), robustness=False, skipped=0)
    assert f"no {'abnormal' if keep == 'normal' else 'normal'} recordings" in html
    assert "Circles: the stored threshold." not in html
    assert ("on the diagonal" in html) == (keep == "normal")

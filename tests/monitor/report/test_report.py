"""Pictures and pages of an analysis: they hold what they should, and need nothing else."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from bokeh.models import Image
from matplotlib.colors import to_rgb

from monitor.colours import PRIORITY
from monitor.report.figures import leads_figure, thinned
from monitor.report.page import write_html
from monitor.report.picture import write_picture
from monitor.report.rows import BAR_MM, lay_out
from stream.offline import AlarmResult, Analysis, MapResult
from stream.overlay import Traces
from stream.results import WindowResult
from stream.stretches import Stretch
from tests.browser import needs_browser, open_page

FS = 100.0


def traces(seconds: float, leads: tuple[str, ...] = ("II", "V1"), scale: float = 1.0) -> Traces:
    t = np.arange(round(seconds * FS)) / FS
    beat = np.exp(-((((t % 0.8) - 0.4) / 0.02) ** 2)).astype(np.float32) * np.float32(scale)
    signal = np.stack([beat * (1 if row % 2 else -1) for row in range(len(leads))]) if leads else beat[:0]
    signal = signal.reshape(len(leads), len(t))
    expected = (signal * np.float32(0.5)).astype(np.float32)
    signal[:, len(t) // 2 : len(t) // 2 + 30] = np.nan
    error = np.abs(signal - expected)
    return Traces(leads, FS, t - 0.0105, signal, expected, error, error**2)


def talkative(plain: Traces) -> Traces:
    """Return traces with a spread of 0.1 mV, and attention that jumps from half an even share to three."""
    late = plain.t_s > plain.t_s.mean()
    attention = np.where(late, np.float32(3), np.float32(0.5)).astype(np.float32)
    return replace(
        plain,
        spread=np.full_like(plain.signal, 0.1),
        temporal_attention=attention,
        lead_attention=np.tile(attention, (len(plain.leads), 1)),
    )


def analysis(
    seconds: float, *, alarms: int = 1, record: str = "100", lasts: bool = False, scored: bool = True
) -> Analysis:
    starts = np.arange(0, seconds - 8 + 1e-9, 0.5) if scored else []
    windows = [
        WindowResult(
            start_s=at,
            end_s=at + 8,
            score=4.0 if seconds / 3 < at < seconds / 2 else 0.5,
            anomalous=bool(seconds / 3 < at < seconds / 2),
            lead_scores={"II": 4.0, "V1": -0.5},
        )
        for at in starts
    ]
    return Analysis(
        record=record,
        model="cae",
        fs=360.0,
        leads=("II", "V1"),
        duration_s=seconds,
        record_score=float(np.mean([window.score for window in windows])) if windows else None,
        threshold=1.0,
        window_threshold=2.0,
        anomalous=True if windows else None,
        windows=windows,
        not_scored={} if windows else {"gap": 5},
        alarms=[
            AlarmResult(
                alarm=f"id-{number}",
                kind="physiological",
                code="ECG_ANOMALY",
                priority="medium",
                message="unusual ECG",
                onset_s=seconds / 3 + number,
                raised_s=seconds / 3 + number + 8,
                end_s=None if lasts else seconds / 2 + number,
                score=4.0,
            )
            for number in range(alarms)
        ],
    )


# ---- pictures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("low_first", [True, False])
def test_no_bar_lies_on_that_of_a_more_urgent_alarm(tmp_path: Path, low_first: bool) -> None:
    found = analysis(60.0)
    low = found.alarms[0].model_copy(update={"priority": "low", "onset_s": 10.0, "end_s": 50.0})
    high = low.model_copy(update={"priority": "high", "onset_s": 12.0, "end_s": 48.0})
    found.alarms[:] = [low, high] if low_first else [high, low]
    file = tmp_path / "x.png"
    write_picture(file, found, traces(60.0))
    picture = matplotlib.image.imread(file)[..., :3]
    shown = {
        name: int((np.abs(picture - to_rgb(PRIORITY[name])) < 0.02).all(axis=2).sum())
        for name in ("low", "high")
    }
    assert shown["high"] > 5 * shown["low"] > 0


TWELVE = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


def red_pixels(picture: np.ndarray) -> int:
    return int(((picture[..., 0] > 0.8) & (picture[..., 1] < 0.3) & (picture[..., 2] < 0.3)).sum())


@pytest.mark.parametrize(
    ("seconds", "leads", "width_mm"),
    [
        (10.0, TWELVE, 10 + 250),
        (10.0, ("II",), 10 + 250),
        # Half the paper speed.
        (28.0, ("II", "V1"), 10 + 350),
        # The leads of ten seconds.
        (600.0, ("II", "V1"), 10 + 250),
    ],
)
def test_a_picture_has_the_papers_size_and_is_drawn(
    tmp_path: Path, seconds: float, leads: tuple[str, ...], width_mm: float
) -> None:
    file = tmp_path / "picture"
    write_picture(file, analysis(seconds), traces(seconds, leads))
    picture = matplotlib.image.imread(file, format="png")
    assert picture.shape[1] == pytest.approx(6 * (width_mm + 27), abs=2)
    assert 300 < picture.shape[0] < 2600
    # Ink, and the reconstruction's red.
    assert (picture[..., :3].sum(axis=2) < 0.4).mean() > 0.003
    assert red_pixels(picture) > 500


@pytest.mark.parametrize("lasts", [True, False])
def test_a_recording_that_was_not_scored_is_drawn_all_the_same(tmp_path: Path, lasts: bool) -> None:
    for seconds in (3.0, 200.0):
        write_picture(tmp_path / "x.png", analysis(seconds, scored=False, lasts=lasts), traces(seconds))
        assert (tmp_path / "x.png").stat().st_size > 10_000


def test_a_recording_without_a_known_lead_is_drawn(tmp_path: Path) -> None:
    nothing = traces(20.0, ())
    write_picture(tmp_path / "x.png", analysis(20.0, scored=False, alarms=0), nothing)
    write_html(tmp_path / "x.html", analysis(20.0, scored=False, alarms=0), nothing)
    write_picture(tmp_path / "x.png", analysis(20.0, scored=False, alarms=0), talkative(nothing))
    write_html(tmp_path / "x.html", analysis(20.0, scored=False, alarms=0), talkative(nothing))


def blue_pixels(picture: np.ndarray) -> int:
    return int(((picture[..., 2] > picture[..., 0] + 0.2) & (picture[..., 0] < 0.65)).sum())


@pytest.mark.parametrize("seconds", [8.1, 10.0, 28.0, 600.0])
@pytest.mark.parametrize("leads", [TWELVE, ("II",)])
def test_bars_of_attention_lie_below_the_leads(
    tmp_path: Path, seconds: float, leads: tuple[str, ...]
) -> None:
    plain = traces(seconds, leads)
    pictures = []
    for drawn in (plain, replace(plain, spread=plain.signal * 0 + 0.1), talkative(plain)):
        # A score's line is blue too: without one.
        write_picture(tmp_path / "x.png", analysis(seconds, alarms=0, scored=False), drawn)
        pictures.append(matplotlib.image.imread(tmp_path / "x.png"))
    heights = [picture.shape[0] for picture in pictures]
    assert heights[0] < heights[1] < heights[2]
    assert len({picture.shape[1] for picture in pictures}) == 1
    # The second half of each bar is dark, 6 pixels a millimetre; and half of the scale in the legend is.
    shown_mm = (25 if seconds < 28 or seconds > 30 else 12.5) * min(seconds, 10.0 if seconds > 30 else 28.0)
    part = 0.5 if seconds <= 30 else 0.0
    bars = (len(leads) + 1) * part * shown_mm * BAR_MM * 36
    assert blue_pixels(pictures[1]) == 0
    assert blue_pixels(pictures[2]) == pytest.approx(bars, rel=0.2, abs=2000)


def test_what_lies_outside_of_the_band_is_stronger_red(tmp_path: Path) -> None:
    # One millivolt above what was expected, all the time: 250 mm times 10 mm of error.
    plain = traces(10.0, ("II",))
    plain.signal[:] = 1.0
    plain.reconstruction[:] = 0.0
    found = []
    for millivolts in (0.01, 0.25, 1.0):
        drawn = replace(plain, spread=np.full_like(plain.signal, millivolts))
        write_picture(tmp_path / "x.png", analysis(10.0, alarms=0, scored=False), drawn)
        picture = matplotlib.image.imread(tmp_path / "x.png")
        redness = picture[..., 0] - picture[..., 1]
        found.append(int(((redness > 0.33) & (redness < 0.55)).sum()))
    # All of it, the half that two standard deviations do not reach, nothing.
    area = 250 * 10 * 36
    assert found == [
        pytest.approx(area, rel=0.08),
        pytest.approx(area / 2, rel=0.08),
        pytest.approx(0, abs=5000),
    ]


def test_bars_are_nearer_to_their_lead_than_to_the_next() -> None:
    for scale in (0.8, 2.0, 6.0):
        plain = traces(10.0, TWELVE, scale)
        drawn = talkative(plain)
        paper = lay_out(drawn, slice(None))
        assert paper.size == lay_out(plain, slice(None)).size
        lows = [float(np.nanmin(paper.heights(s, drawn.signal[s.row]))) for s in paper.strips]
        highs = [float(np.nanmax(paper.heights(s, drawn.signal[s.row]))) for s in paper.strips]
        for place, strip in enumerate(paper.strips):
            above = lows[place] - (strip.bar + BAR_MM)
            below = strip.bar - (highs[place + 1] if place + 1 < len(highs) else paper.foot + BAR_MM)
            assert 0 < above < below
        assert 0 < paper.foot < paper.strips[-1].bar - BAR_MM


def test_rows_hold_their_signal_and_do_not_touch() -> None:
    for scale, size in ((0.8, 10.0), (2.0, 5.0), (6.0, 2.5)):
        drawn = traces(10.0, TWELVE, scale)
        paper = lay_out(drawn, slice(None))
        assert paper.size == size
        assert [strip.lead for strip in paper.strips] == list(TWELVE)
        low = paper.height
        for strip in paper.strips:
            heights = paper.heights(strip, drawn.signal[strip.row])
            assert np.nanmax(heights) <= low + 1.5
            low = min(low, float(np.nanmin(heights)))
            assert strip.baseline == round(strip.baseline)
        assert low > 0


# ---- pages -----------------------------------------------------------------------------------------------


def test_a_page_needs_nothing_from_outside_and_holds_the_numbers(tmp_path: Path) -> None:
    found = analysis(60.0, alarms=2)
    write_html(tmp_path / "x.html", found, traces(60.0))
    page = (tmp_path / "x.html").read_text()
    assert (
        re.findall(
            r"""(?:src|href)\s*=\s*["'](?!data:)[^"']+""",
            re.sub(r"<script.*?</script>", "", page, flags=re.S),
        )
        == []
    )
    assert re.findall(r"<script[^>]*\ssrc", page) == []
    assert "default-src 'none'" in page
    assert "cdn.bokeh.org" not in re.sub(
        r"<script type=\"text/javascript\">.*?</script>", "", page, flags=re.S
    )
    (text,) = re.findall(r'<script type="application/json" id="analysis">(.*?)</script>', page)
    assert json.loads(text) == json.loads(found.model_dump_json())
    assert page.count("<code>id-") == 2
    assert "Not a medical device" in page
    assert 1_000_000 < len(page) < 2_500_000


def test_a_name_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    write_html(tmp_path / "x.html", analysis(20.0, record="</script><script>alert(1)"), traces(20.0))
    page = (tmp_path / "x.html").read_text()
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_the_page_of_a_long_recording_stays_small(tmp_path: Path) -> None:
    found = analysis(4 * 3600.0, alarms=3)
    write_html(tmp_path / "x.html", found, traces(4 * 3600.0))
    page = (tmp_path / "x.html").read_text()
    assert len(page) < 6_000_000
    (text,) = re.findall(r'<script type="application/json" id="analysis">(.*?)</script>', page)
    assert "windows" not in json.loads(text)
    assert "without its" in page
    assert "lowest and" in page


def test_thinning_keeps_every_spike_and_what_was_asked_for() -> None:
    long = traces(3600.0)
    long.signal[1, 123_456] = 7.0
    asked = Stretch(100.0, 110.0)
    drawn = thinned(long, [asked], 30_000)
    assert not drawn.in_full
    assert drawn.values.shape == (4, len(drawn.t_s))
    assert drawn.values.size + 2 * len(drawn.t_s) < 33_000
    assert (np.diff(drawn.t_s) > 0).all()
    spike = drawn.t_s[np.nanargmax(drawn.values[1])]
    assert np.nanmax(drawn.values[1]) == 7.0
    assert spike == pytest.approx(1234.56, abs=1.0)
    inside = (drawn.t_s >= 100) & (drawn.t_s < 110)
    assert inside.sum() == 1000
    np.testing.assert_array_equal(drawn.values[0, inside], long.signal[0, 10_002:11_002])
    whole = thinned(traces(10.0), [asked])
    assert whole.in_full
    assert whole.values.shape == (4, 1000)


def test_thinning_keeps_the_band_around_all_that_was_in_it() -> None:
    long = talkative(traces(3600.0))
    drawn = thinned(long, [Stretch(100.0, 110.0)], 60_000)
    assert drawn.values.shape == (8, len(drawn.t_s))
    low, high = drawn.values[4:6], drawn.values[6:8]
    known = np.isfinite(drawn.values[2:4])
    assert (low[known] <= drawn.values[2:4][known] - 0.19).all()
    assert (high[known] >= drawn.values[2:4][known] + 0.19).all()
    inside = (drawn.t_s >= 100) & (drawn.t_s < 110)
    np.testing.assert_allclose(low[:, inside], long.reconstruction[:, 10_002:11_002] - 0.2, atol=1e-6)


@pytest.mark.parametrize("seconds", [10.0, 1800.0, 3 * 3600.0])
def test_bars_of_the_page_show_the_attention_at_its_time(seconds: float) -> None:
    drawn = talkative(traces(seconds))
    drawn.temporal_attention[: len(drawn.t_s) // 4] = np.nan  # type: ignore[index]
    paper = lay_out(drawn, slice(None))
    plot = leads_figure(
        analysis(seconds), drawn, paper, thinned(drawn, [], 30_000), Stretch(0.0, min(seconds, 10.0))
    )
    bars: dict[float, list[tuple[float, float, np.ndarray]]] = {}
    for renderer in plot.renderers:
        if isinstance(renderer.glyph, Image):
            (image,) = renderer.data_source.data["image"]
            # Wider than that a browser draws nothing.
            assert image.shape[1] <= 16_000
            glyph = renderer.glyph
            bars.setdefault(glyph.y, []).append((glyph.x, glyph.dw / image.shape[1], image[0]))
    assert sorted(bars) == sorted([paper.foot, *(strip.bar for strip in paper.strips)])
    for y, pieces in bars.items():
        times = np.concatenate([x + (np.arange(len(codes)) + 0.5) * step for x, step, codes in pieces])
        codes = np.concatenate([codes for _, _, codes in pieces])
        assert (np.diff(times) > 0).all()
        assert times[0] < 0.3
        assert times[-1] > seconds - 0.5
        far = np.abs(times - drawn.t_s.mean()) > 0.5
        late = times > drawn.t_s.mean()
        assert set(codes[far & late].tolist()) == {1 + round(254 * (0.5 + np.log2(3) / 4))}
        early = {1 + round(254 * 0.25)}
        assert set(codes[far & ~late].tolist()) == (early | {0} if y == paper.foot else early)
        assert len(codes) < 250_000


def test_a_page_says_what_is_drawn_and_what_is_not(tmp_path: Path) -> None:
    hidden = {"lead_attention": MapResult(shown=False, why_not="no information (deletion test)")}
    found = analysis(20.0).model_copy(update={"explanations": hidden})
    write_html(tmp_path / "x.html", found, replace(talkative(traces(20.0)), lead_attention=None))
    page = (tmp_path / "x.html").read_text()
    assert "± 2 of the standard deviations that it expected" in page
    assert "at each moment (bar below all leads)" in page
    assert "Not drawn: lead attention, no information (deletion test)." in page
    write_html(tmp_path / "x.html", analysis(20.0), traces(20.0))
    page = (tmp_path / "x.html").read_text()
    for word in ("standard deviations that", "Attention:", "Not drawn", "even share"):
        assert word not in page


@pytest.mark.page
@pytest.mark.slow
@needs_browser
def test_a_browser_draws_the_page_and_a_button_moves_it(tmp_path: Path) -> None:
    write_html(tmp_path / "x.html", analysis(300.0), talkative(traces(300.0)))
    with open_page() as page:
        page.goto((tmp_path / "x.html").as_uri())
        start = "() => window.Bokeh?.documents[0]?.get_model_by_name('leads')?.x_range.start"
        page.wait_for_function(f"() => ({start})() !== undefined")
        # Its windows score alike from 100.5 s on; eleven seconds around the first ten.
        assert page.evaluate(start) == pytest.approx(100.0)
        page.evaluate("document.querySelectorAll('#windows button')[3].click()")
        assert page.evaluate(start) == pytest.approx(101.0)
        assert page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name)") == []

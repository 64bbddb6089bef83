"""The history in a real browser, of what the real recorder wrote."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import wfdb
from playwright.sync_api import Page, Route, expect

import bedside
from stream.embedded import EmbeddedServer
from stream.recording.store import Recordings
from tests.browser import ANALYSED_MS, analysed, needs_browser, open_page, painted_sheet, text, wait
from tests.monitor.history.recorded import BED, SECOND_S, SECONDS, VT_S, first_session, record_patient
from tests.monitor.history.test_history import go_on, write
from tests.monitor.messages import alarm
from tests.monitor.serving import FakeWard, dashboard
from tests.stream.recording.making import T0
from tests.stream.recording.test_recorder import recorder, send, until

pytestmark = [pytest.mark.page, pytest.mark.slow, needs_browser]

T0_MS = T0 / 1e6
AT = "() => window.bedside.parts.historySheet.at"
LINKED = "() => Date.parse(new URL(window.location.href).searchParams.get('at') ?? '') || 0"


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture(scope="module")
def url(redis_server_module: EmbeddedServer, recordings: Path) -> Iterator[str]:
    record_patient(redis_server_module, recordings, bedside.load_model())
    with dashboard(redis_server_module.url, recordings=recordings) as running:
        yield running.url


@pytest.fixture
def page() -> Iterator[Page]:
    with open_page(1280, 800) as opened:
        yield opened


def at_s(page: Page) -> float:
    """Return the moment under the cursor, seconds of the recording."""
    return (float(page.evaluate(AT)) - T0_MS) / 1000


def recorded_to(root: Path) -> int:
    return (Recordings(root).span(BED) or (0, 0))[1]


def test_an_alarm_is_found_looked_at_and_played_again(page: Page, url: str, artefacts: Path) -> None:
    page.goto(f"{url}?view=ward&bed={quote(BED)}")
    expect(page.locator("#view-ward")).to_be_visible()
    page.keyboard.press("h")
    expect(page.locator("#hist-bed")).to_have_value(BED)
    # At its end, and of the newest session.
    wait(page, lambda: painted_sheet(page, "trace") > 0)
    assert at_s(page) > SECOND_S
    expect(page.locator("#hist-alarms button")).to_have_count(5)
    row = page.locator("#hist-alarms button", has_text="Ventricular tachycardia")
    row.click()
    expect(row).to_have_attribute("aria-current", "true")
    assert VT_S - 1 < at_s(page) < VT_S + 3
    # The signal is there before the model is.
    wait(page, lambda: painted_sheet(page, "trace") > 10_000)
    analysed(page)
    assert painted_sheet(page, "error") > 2_500
    expect(page.locator("#hist-score")).to_have_text(re.compile(r"\d\.\d"))
    expect(page.locator("#hist-rate")).to_have_text(re.compile(r"\d+"))
    page.screenshot(path=artefacts / "history-alarm.png")
    began = at_s(page)
    page.select_option("#hist-speed", "10")
    page.click("#hist-play")
    # The sheet is turned on the way.
    wait(page, lambda: at_s(page) > began + 12)
    page.click("#hist-play")
    stopped = at_s(page)
    assert painted_sheet(page, "trace") > 10_000
    page.keyboard.press("ArrowLeft")
    wait(page, lambda: abs(at_s(page) - stopped + 10) < 0.2)
    page.keyboard.press("[")
    page.keyboard.press("[")
    wait(page, lambda: at_s(page) < stopped - 10)


def test_scrolling_the_timeline_over_a_gap(page: Page, url: str) -> None:
    page.goto(f"{url}?view=history&bed={quote(BED)}")
    wait(page, lambda: painted_sheet(page, "trace") > 0)
    page.select_option("#hist-zoom", "15")
    line = page.locator("#hist-line").bounding_box()
    assert line is not None

    def x(seconds: float) -> float:
        found = page.evaluate("(at) => window.bedside.parts.historyLine.x(at)", T0_MS + seconds * 1000)
        assert line is not None
        return float(line["x"] + found)

    page.mouse.click(x(20.0), line["y"] + 60)
    wait(page, lambda: abs(at_s(page) - 20) < 3)
    wait(page, lambda: painted_sheet(page, "trace") > 10_000)
    # Where nothing was recorded, that is said.
    page.mouse.click(x(SECONDS + 30), line["y"] + 60)
    expect(page.locator("#hist-notice")).to_have_text("Nothing was recorded here")
    # Played, the gap takes no time.
    page.click("#hist-play")
    wait(page, lambda: at_s(page) > SECOND_S)
    page.click("#hist-play")
    page.mouse.wheel(0, -500)
    page.keyboard.press("Home")
    wait(page, lambda: abs(at_s(page)) < 0.1)
    page.keyboard.press("g")
    page.keyboard.press("Control+a")
    wall = page.evaluate("(at) => window.bedside.parts.alarmWords.time(at)", T0_MS + 60_000)
    page.keyboard.type(wall)
    page.keyboard.press("Enter")
    wait(page, lambda: abs(at_s(page) - 60) < 1.1)


def test_a_link_leads_to_its_moment_and_a_comparison(page: Page, url: str, artefacts: Path) -> None:
    page.goto(f"{url}?view=history&bed={quote(BED)}")
    wait(page, lambda: painted_sheet(page, "trace") > 0)
    page.locator("#hist-alarms button", has_text="Ventricular tachycardia").click()
    # The address follows the cursor after a moment, and named the end of the recording before.
    wait(page, lambda: abs(page.evaluate(LINKED) - page.evaluate(AT)) <= 1)
    moment = at_s(page)
    link = page.url
    page.goto("about:blank")
    page.goto(link)
    analysed(page)
    wait(page, lambda: abs(at_s(page) - moment) < 0.01)
    page.keyboard.press("c")
    words = page.locator("#hist-words")
    expect(words).to_contain_text("Reference: the first clean minute recorded", timeout=ANALYSED_MS)
    expect(page.locator("#hist-beats figure")).to_have_count(12)
    expect(page.locator("#hist-numbers")).to_contain_text("Heart rate80 bpm")
    assert "unlike" in str(page.locator("[data-lead=II] figcaption span").nth(1).get_attribute("class"))
    page.screenshot(path=artefacts / "history-compare.png")
    page.keyboard.press("Shift+ArrowLeft")
    expect(page.locator("[data-lead=II] figcaption span").nth(1)).to_have_text(re.compile(r"r 0\.9|r 1\.0"))
    page.click("#hist-pin")
    expect(words).to_contain_text("Reference: pinned")
    wait(page, lambda: "ref=" in page.url)
    page.keyboard.press("d")
    page.screenshot(path=artefacts / "history-compare-dark.png")


def test_a_sheet_is_laid_out_once_however_slow_the_model_is(page: Page, url: str) -> None:
    """What the model says makes the legend longer, which leaves the sheet less room: it must end there."""
    page.goto(f"{url}?view=history&bed={quote(BED)}&at=2025-11-29T10:31:31.6Z")
    analysed(page)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/comparison?" in request.url else None)
    unanswered: list[Route] = []

    def answer(route: Route) -> None:
        # Of the first sheet that fits beside the comparison nothing gets known, of all others everything.
        if not unanswered or route.request.url == unanswered[0].request.url:
            unanswered.append(route)
        else:
            route.continue_()

    page.route("**/findings?*", answer)
    page.keyboard.press("c")
    expect(page.locator("#hist-words")).to_contain_text("Reference:", timeout=ANALYSED_MS)
    page.wait_for_timeout(1500)
    asked.clear()
    page.wait_for_timeout(1500)
    assert asked == []


def test_exports_are_saved_and_open(page: Page, url: str, tmp_path: Path) -> None:
    page.goto(f"{url}?view=history&bed={quote(BED)}&at=2025-11-29T10:31:25Z")
    wait(page, lambda: painted_sheet(page, "trace") > 0)
    page.click("#hist-export summary")
    with page.expect_download() as saved:
        page.click("[data-form=zip]")
    with zipfile.ZipFile(io.BytesIO(Path(saved.value.path()).read_bytes())) as packed:
        packed.extractall(tmp_path)
    (header,) = tmp_path.glob("*.hea")
    assert wfdb.rdrecord(str(header.with_suffix(""))).p_signal.shape == (5000, 12)
    assert "N" in wfdb.rdann(str(header.with_suffix("")), "bed").symbol
    for form, magic in (("pdf", b"%PDF"), ("png", b"\x89PNG")):
        with page.expect_download() as saved:
            page.click(f"[data-form={form}]")
        assert Path(saved.value.path()).read_bytes().startswith(magic)
        expect(page.locator("#hist-exported")).to_have_text(re.compile(rf"Saved as icu_1_a-.*\.{form}"))
    page.select_option("#hist-long", "600")
    expect(page.locator("[data-form=pdf]")).to_be_disabled()


def test_a_bed_that_is_recorded_now_goes_on_and_is_reached_from_its_live_view(
    page: Page, redis_server: EmbeddedServer, tmp_path: Path
) -> None:
    chunks = first_session()
    writer = write(tmp_path / "bed-1", chunks[:100])
    # Of its own: an alarm has a banner on every page, and leaves sheets less room.
    with (
        FakeWard(redis_server.url, {"bed-1": ("I", "II")}).running() as ward,
        dashboard(redis_server.url, recordings=tmp_path) as running,
    ):
        page.goto(f"{running.url}?view=bed&bed=bed-1")
        expect(page.locator("#name")).to_have_text("bed-1")
        page.click("#past")
        expect(page.locator("#hist-span")).to_have_text(re.compile("recorded .* to now"))
        wait(page, lambda: painted_sheet(page, "trace") > 0)
        before = painted_sheet(page, "trace")
        go_on(writer, chunks[100:150])
        page.keyboard.press("End")
        wait(page, lambda: at_s(page) > 19)
        # What has come since is known within seconds.
        wait(page, lambda: page.keyboard.press("End") or at_s(page) > 29)
        wait(page, lambda: painted_sheet(page, "trace") >= before)
        page.keyboard.press("l")
        expect(page.locator("#view-bed")).to_be_visible()
        # From an alarm of the panel, too.
        ward.raise_alarm(alarm("x", bed="bed-1", onset_t=T0 + 8_000_000_000))
        page.keyboard.press("a")
        page.locator(".entry", has_text="unusual ECG").click()
        page.click("text=Show in history")
        wait(page, lambda: abs(at_s(page) - 8) < 0.1)


def test_a_bed_whose_recorder_was_killed_is_not_said_to_be_recorded(
    redis_server: EmbeddedServer, tmp_path: Path, artefacts: Path
) -> None:
    with dashboard(redis_server.url, recordings=tmp_path) as running:
        with recorder(redis_server, tmp_path) as process:
            # Before the browser, which has an event loop of its own.
            send(redis_server, first_session()[:150])
            until(lambda: recorded_to(tmp_path) == T0 + 30 * 10**9)
            process.kill()
            process.wait()
        assert Recordings(tmp_path).segments(BED)[-1].is_open
        with open_page(1280, 800) as page:
            page.goto(f"{running.url}?view=history&bed={quote(BED)}")
            span = page.locator("#hist-span")
            expect(span).to_have_text(re.compile("recorded .* to now$"))
            # Some hours later.
            running.leap()
            expect(span).to_have_text(re.compile(r"recorded .* to [-\d: ]+ · nothing is recorded now$"))
            page.screenshot(path=artefacts / "history-killed.png")


def test_without_recordings_it_says_how_to_record(
    page: Page, redis_server: EmbeddedServer, tmp_path: Path
) -> None:
    folder = tmp_path / "recordings"
    with dashboard(redis_server.url, recordings=folder) as running:
        page.goto(f"{running.url}?view=history")
        expect(page.locator("#hist-none h2")).to_have_text("Nothing is recorded yet")
        assert text(page, "#hist-none code") == f"bedside record --out {folder}"
        # As soon as something is, it is shown.
        folder.mkdir()
        write(folder / "icu-2", first_session()[:60])
        expect(page.locator("#hist-bed")).to_have_value("icu-2")
        wait(page, lambda: painted_sheet(page, "trace") > 0)

"""History and uploads in a real browser, behind a login and a proxy with a prefix: who may do what."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pydicom.data
import pytest
import wfdb
from playwright.sync_api import Page, expect

import bedside
from stream.embedded import EmbeddedServer
from tests.browser import analysed, needs_browser, open_page, painted_sheet, wait
from tests.monitor.history.recorded import BED, record_patient
from tests.monitor.login.people import OPERATOR, VIEWER, sign_in, users_file
from tests.monitor.proxy import Proxy
from tests.monitor.serving import dashboard

pytestmark = [pytest.mark.page, pytest.mark.slow, needs_browser]

DICOM = Path(str(pydicom.data.get_testdata_file("waveform_ecg.dcm")))
# An export is an analysis in a process of its own, which has two minutes.
LONG_MS = 120_000
HISTORY = f"?view=history&bed={quote(BED)}&at=2025-11-29T10:31:25Z"


@pytest.fixture(scope="module")
def recordings(redis_server_module: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("recordings")
    record_patient(redis_server_module, root, bedside.load_model())
    return root


@pytest.fixture(scope="module", params=[False, True], ids=["prefix kept", "prefix taken away"])
def address(
    request: pytest.FixtureRequest,
    redis_server_module: EmbeddedServer,
    recordings: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    users = tmp_path_factory.mktemp("users") / "users.json"
    users_file(users)
    with (
        Proxy(strip=request.param) as before,
        dashboard(
            redis_server_module.url,
            recordings=recordings,
            users=users,
            names=[before.name],
            path="/bedside",
        ) as running,
    ):
        before.target = f"http://127.0.0.1:{running.port}"
        yield before.url


@pytest.fixture
def page() -> Iterator[Page]:
    with open_page() as opened:
        yield opened


def be_signed_in(page: Page, user: str) -> None:
    sign_in(page, user)
    expect(page.locator("#bar #user")).to_contain_text(user)


def all_from(page: Page, address: str) -> bool:
    """Return whether whatever the page has loaded came from below the prefix."""
    names = page.evaluate("() => performance.getEntriesByType('resource').map((entry) => entry.name)")
    asked = [name for name in names if not name.startswith("blob:")]
    return bool(asked) and all(name.startswith(address) for name in asked)


@pytest.mark.parametrize("user", [OPERATOR, VIEWER])
def test_the_history_is_read_and_exported(page: Page, address: str, tmp_path: Path, user: str) -> None:
    page.goto(address + HISTORY)
    be_signed_in(page, user)
    # Who signs in is at the moment that the link named.
    wait(page, lambda: painted_sheet(page, "trace") > 10_000)
    assert page.url.startswith(address)
    assert "at=2025-11-29T10%3A31%3A25" in page.url
    expect(page.locator("#hist-alarms button")).to_have_count(5)
    analysed(page)
    page.keyboard.press("c")
    expect(page.locator("#hist-beats figure")).to_have_count(12, timeout=LONG_MS)
    page.click("#hist-export summary")
    for form, magic in (("zip", b"PK"), ("pdf", b"%PDF"), ("png", b"\x89PNG")):
        with page.expect_download(timeout=LONG_MS) as saved:
            page.click(f"[data-form={form}]")
        made = Path(saved.value.path()).read_bytes()
        assert made.startswith(magic)
        expect(page.locator("#hist-exported")).to_have_text(re.compile(rf"Saved as icu_1_a-.*\.{form}"))
        if form == "zip":
            zipfile.ZipFile(io.BytesIO(made)).extractall(tmp_path)
    (header,) = tmp_path.glob("*.hea")
    assert wfdb.rdrecord(str(header.with_suffix(""))).p_signal.shape == (5000, 12)
    assert all_from(page, address)


@pytest.mark.parametrize("user", [OPERATOR, VIEWER])
def test_a_file_is_analysed(page: Page, address: str, user: str) -> None:
    page.goto(f"{address}?view=analyse")
    sign_in(page, user)
    expect(page.locator("#choose")).to_be_visible()
    page.set_input_files("#files", {"name": "x.dat", "mimeType": "", "buffer": b"0"})
    expect(page.locator("#refused")).to_contain_text("without its header x.hea")
    page.set_input_files("#files", DICOM)
    page.wait_for_selector("#result.done", timeout=LONG_MS)
    page.frame_locator("#report").locator("text=Not a medical device").first.wait_for()
    for title, magic in (("JSON", b"{"), ("Picture", b"\x89PNG"), ("WFDB with annotations", b"PK")):
        with page.expect_download(timeout=LONG_MS) as saved:
            page.click(f"#downloads >> text={title}")
        assert Path(saved.value.path()).read_bytes().startswith(magic)
    with page.expect_popup() as opened:
        page.click("#downloads >> text=Open in a tab")
    opened.value.locator("text=Not a medical device").first.wait_for()
    assert all_from(page, address)
    page.click("#discard")
    expect(page.locator("#result")).to_be_hidden()


def test_nobody_reads_the_history_without_signing_in(page: Page, address: str) -> None:
    page.goto(address)
    be_signed_in(page, VIEWER)
    bed = f"{address}api/history/{quote(BED, safe='')}"
    forms = (f"{address}api/history", bed, f"{bed}/signal?from=0&seconds=10", f"{bed}/export.zip?from=0&to=1")
    assert page.request.get(forms[1]).status == 200
    # Nor does somebody else's page, with the viewer's own cookie.
    assert page.request.get(forms[1], headers={"Origin": "https://elsewhere.example"}).status == 403
    page.context.clear_cookies()
    assert [page.request.get(one).status for one in forms] == [401] * len(forms)

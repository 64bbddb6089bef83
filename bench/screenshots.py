"""The pictures of the page in README and docs: ``python -m bench.screenshots``.

Starts the demonstration, waits until its fourth bed has fallen ill, and takes pictures of the views in
headless Chromium (Debian's package ``chromium``; ``pip install playwright``).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click
from playwright.sync_api import Page, ViewportSize, sync_playwright
from pydicom.data import get_testdata_file

from stream.children import spawn

_FOLDER = Path(__file__).parents[1] / "docs" / "images"
# A picture in README is shown at some 900 pixels: larger ones would have smaller letters.
_SIZE: ViewportSize = {"width": 1360, "height": 850}
_PORT = 5066
_ILL_MS = 60_000
# A sweep that is full, and explanations behind it.
_SWEEP_MS = 12_000
_ANALYSIS_MS = 60_000


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=_FOLDER, show_default=False, help="Folder.")
def main(out: Path) -> None:
    """Take the pictures of the page that README and docs show."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise click.ClickException("no chromium on PATH: apt-get install chromium")
    recordings = tempfile.TemporaryDirectory(prefix="bedside-screenshots-")
    command = [sys.executable, "-m", "bedside", "demo", "--port", str(_PORT), "--record", recordings.name]
    demo = spawn(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport=_SIZE)
            _take(page, _address(demo), out)
            browser.close()
    finally:
        demo.terminate()
        demo.wait()
        recordings.cleanup()


def _address(demo: subprocess.Popen[bytes]) -> str:
    assert demo.stdout is not None
    for line in demo.stdout:
        if found := re.search(rb"http://\S+", line):
            return found[0].decode()
    raise click.ClickException("the demonstration did not start")


def _take(page: Page, address: str, out: Path) -> None:
    page.goto(f"{address}/?view=ward")
    page.wait_for_selector(".high", timeout=_ILL_MS)
    page.wait_for_timeout(_SWEEP_MS / 4)
    page.screenshot(path=out / "ward.png")
    page.goto(f"{address}/?view=bed&bed=bed-4")
    page.wait_for_timeout(_SWEEP_MS)
    page.screenshot(path=out / "bed.png")
    page.goto(f"{address}/?view=alarms")
    page.wait_for_selector(".entry.high", timeout=_ILL_MS)
    page.keyboard.press("j")
    # Stored ten seconds after the alarm was raised, then drawn.
    page.wait_for_selector(".snapshot img", timeout=_ILL_MS)
    page.screenshot(path=out / "alarms.png")
    page.goto(f"{address}/?view=history&bed=bed-4")
    page.locator("#hist-alarms .high").first.click()
    page.wait_for_selector("#hist-state[data-state=done]", timeout=_ANALYSIS_MS)
    page.wait_for_timeout(_SWEEP_MS / 4)
    page.screenshot(path=out / "history.png")
    page.goto(f"{address}/?view=system")
    page.wait_for_selector("#view-system tbody tr")
    page.wait_for_timeout(_SWEEP_MS / 4)
    page.screenshot(path=out / "system.png")
    page.goto(f"{address}/?view=analyse")
    # The page takes files once it has begun.
    page.wait_for_selector("#view-analyse")
    page.set_input_files("#files", str(get_testdata_file("waveform_ecg.dcm")))
    page.wait_for_selector("#result.done", timeout=_ANALYSIS_MS)
    page.wait_for_timeout(_SWEEP_MS / 4)
    page.screenshot(path=out / "analyse.png")


if __name__ == "__main__":
    main()

"""Recordings dropped on the page: sent to a real dashboard, analysed by a real process."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pydicom.data
import pytest

from monitor.uploads import desk
from stream.embedded import EmbeddedServer
from tests.browser import needs_browser, open_page
from tests.command_line import run
from tests.monitor.serving import dashboard

pytestmark = pytest.mark.slow

Body = Callable[[aiohttp.ClientSession], Awaitable[None]]
DICOM = Path(str(pydicom.data.get_testdata_file("waveform_ecg.dcm")))
OUTSIDE = b"a 1 500 10\n/etc/passwd 16 1/mV 16 0 0 0 0 II\n"


def served(server: EmbeddedServer, body: Body) -> None:
    async def go() -> None:
        with dashboard(server.url) as running:
            async with aiohttp.ClientSession(running.url) as http:
                await asyncio.wait_for(body(http), 120)

    asyncio.run(go())


async def begin(http: aiohttp.ClientSession, files: list[str], **more: Any) -> tuple[int, dict[str, Any]]:
    async with http.post("/api/analyses", json={"files": files, **more}) as answer:
        return answer.status, await answer.json()


async def send(http: aiohttp.ClientSession, job: str, name: str, body: bytes) -> tuple[int, dict[str, Any]]:
    async with http.put(f"/api/analyses/{job}/files/{name}", data=body) as answer:
        return answer.status, await answer.json()


async def outcome(http: aiohttp.ClientSession, job: str) -> dict[str, Any]:
    while True:
        async with http.get(f"/api/analyses/{job}") as answer:
            told: dict[str, Any] = await answer.json()
        if told["state"] in ("done", "failed"):
            return told
        await asyncio.sleep(0.1)


def test_an_upload_gives_what_the_command_gives(redis_server: EmbeddedServer) -> None:
    ran = run("analyze", DICOM, "--json", "-")
    assert ran.returncode == 0
    expected = json.loads(ran.stdout)
    uploaded = DICOM.read_bytes()

    async def body(http: aiohttp.ClientSession) -> None:
        status, job = await begin(http, ["ecg.dcm"])
        assert (status, job["state"], job["missing"]) == (201, "uploading", ["ecg.dcm"])
        assert (await send(http, job["id"], "ecg.dcm", uploaded))[0] == 200
        told = await outcome(http, job["id"])
        assert (told["state"], told["error"]) == ("done", "")
        assert told["results"] == list(desk.RESULTS)
        async with http.get(f"/api/analyses/{job['id']}/result.json") as answer:
            found = await answer.json(content_type=None)
        for name in ("fs", "leads", "windows", "beats_s", "record_score", "model"):
            assert found[name] == expected[name], name
        async with http.get(f"/api/analyses/{job['id']}/report.html") as answer:
            assert "sandbox" in answer.headers["Content-Security-Policy"]
            assert "Not a medical device" in await answer.text()
        async with http.get(f"/api/analyses/{job['id']}/record.zip?download=1") as answer:
            assert answer.headers["Content-Disposition"] == 'attachment; filename="ecg.zip"'
            packed = zipfile.ZipFile(io.BytesIO(await answer.read()))
        assert packed.read("ecg.dcm") == uploaded
        async with http.delete(f"/api/analyses/{job['id']}") as answer:
            assert answer.status == 200
        async with http.get(f"/api/analyses/{job['id']}") as answer:
            assert answer.status == 404

    served(redis_server, body)


def test_bad_uploads_are_refused_in_words(redis_server: EmbeddedServer) -> None:
    noise = io.BytesIO()
    np.save(noise, np.zeros((7, 3)))

    async def body(http: aiohttp.ClientSession) -> None:
        for files, more, why in (
            (["100.dat"], {}, "without its header 100.hea"),
            (["cat.gif"], {}, "an ECG that can be read"),
            (["a.npy"], {}, "does not say its sampling frequency"),
            (["a.npy"], {"fs": -1}, "greater than 0"),
            (["a.dcm"], {"model": "gpt"}, "choose from cae-100hz"),
        ):
            status, told = await begin(http, files, **more)
            assert status == 400
            assert why in told["error"]
        for files, contents, more, why in (
            (["a.dcm"], [b"no DICOM at all"], {}, "a.dcm"),
            (["a.npy"], [noise.getvalue()], {"fs": 500}, "a.npy"),
            (
                ["a.hea", "a.dat"],
                [b"a 1 500 10\n/etc/passwd 16 1/mV 16 0 0 0 0 II\n", b""],
                {},
                "not beside it",
            ),
            (["a.hea"], [b"a 1 500 10\na.dat 16 1/mV 16 0 0 0 0 II\n"], {}, "needs a.dat"),
            (["a.hea"], [b"\x00\xff\xfe"], {}, "a.hea"),
        ):
            status, job = await begin(http, files, **more)
            assert status == 201
            for name, content in zip(files, contents, strict=True):
                assert (await send(http, job["id"], name, content))[0] == 200
            told = await outcome(http, job["id"])
            assert told["state"] == "failed"
            assert why in told["error"]
            assert "bedside-analyses" not in told["error"]
            assert "\n" not in told["error"]
        status, job = await begin(http, ["a.dcm"])
        assert (await send(http, job["id"], "b.dcm", b""))[0] == 409
        async with http.put(
            f"/api/analyses/{job['id']}/files/a.dcm", headers={"Content-Length": str(2**40)}
        ) as answer:
            assert answer.status == 413
            assert "use `bedside analyze`" in (await answer.json())["error"]

    served(redis_server, body)


def test_the_process_that_reads_an_upload_is_limited() -> None:
    program = "from monitor.uploads.limits import limit; limit(); bytearray(8 * 2**30)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "MemoryError" in ended.stderr
    program = "import os; from monitor.uploads.limits import limit; limit(); print(os.nice(0))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(ended.stdout) == min(19, os.nice(0) + 10)


@pytest.mark.page
@needs_browser
def test_a_person_drops_a_recording_and_reads_the_verdict(
    redis_server: EmbeddedServer, artefacts: Path
) -> None:
    with dashboard(redis_server.url) as running, open_page() as page:
        page.goto(f"{running.url}?view=analyse")
        page.wait_for_selector("#choose")
        page.screenshot(path=artefacts / "analyse-empty.png")
        page.set_input_files("#files", {"name": "x.dat", "mimeType": "", "buffer": b"0"})
        page.wait_for_selector("text=without its header x.hea")
        page.select_option("#with", "vae-bilstm-100hz")
        page.set_input_files("#files", DICOM)
        page.wait_for_selector("#result.done", timeout=60_000)
        assert page.inner_text("#words") in ("as normals are", "unusual")
        assert "Model vae-bilstm-100hz" in page.inner_text("#sentences")
        assert "vae-bilstm-100hz" in page.inner_text("#figures")
        assert "heart rate" in page.inner_text("#figures").lower()
        frame = page.frame_locator("#report")
        frame.locator("text=Not a medical device").first.wait_for()
        page.wait_for_timeout(1_000)
        page.screenshot(path=artefacts / "analyse-done.png")
        with page.expect_download() as download:
            page.click("#downloads >> text=JSON")
        assert download.value.suggested_filename == "waveform_ecg.json"
        page.reload()
        page.wait_for_selector("#result.done")
        page.click("#discard")
        page.wait_for_selector("#nothing")

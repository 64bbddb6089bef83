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
from urllib.parse import quote

import aiohttp
import numpy as np
import pydicom.data
import pytest
import scipy.io
import wfdb
from playwright.sync_api import expect

from ingest.simulator import PatientSimulator
from monitor.login.users import Role, User, changing
from monitor.uploads import desk
from stream.embedded import EmbeddedServer
from tests.browser import needs_browser, open_page, wait
from tests.command_line import run
from tests.monitor.login.people import OPERATOR, VIEWER, sign_in, users_file
from tests.monitor.proxy import PREFIX, Proxy
from tests.monitor.serving import Dashboard, dashboard

pytestmark = pytest.mark.slow

Body = Callable[[aiohttp.ClientSession], Awaitable[None]]
DICOM = Path(str(pydicom.data.get_testdata_file("waveform_ecg.dcm")))
# Another viewer.
OTHER = "wall 4"
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
    async with http.put(f"/api/analyses/{job}/files/{quote(name)}", data=body) as answer:
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
    uploaded, name = DICOM.read_bytes(), "ECG (1) Müller.dcm"

    async def body(http: aiohttp.ClientSession) -> None:
        status, job = await begin(http, [name])
        assert (status, job["state"], job["missing"]) == (201, "uploading", [name])
        assert (await send(http, job["id"], name, uploaded))[0] == 200
        told = await outcome(http, job["id"])
        assert (told["state"], told["error"]) == ("done", "")
        assert told["results"] == list(desk.RESULTS)
        async with http.get(f"/api/analyses/{job['id']}/result.json") as answer:
            found = await answer.json(content_type=None)
        for part in ("fs", "leads", "windows", "beats_s", "record_score", "model"):
            assert found[part] == expected[part], part
        async with http.get(f"/api/analyses/{job['id']}/report.html") as answer:
            assert "sandbox" in answer.headers["Content-Security-Policy"]
            assert "Not a medical device" in await answer.text()
        async with http.get(f"/api/analyses/{job['id']}/record.zip?download=1") as answer:
            saved_as = "filename=\"ECG__1__M_ller.zip\"; filename*=UTF-8''ECG%20%281%29%20M%C3%BCller.zip"
            assert answer.headers["Content-Disposition"] == f"attachment; {saved_as}"
            packed = zipfile.ZipFile(io.BytesIO(await answer.read()))
        assert packed.read(name) == uploaded
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
            (["a.npy"], {"fs": 500, "leads": "I,\0"}, "their names, with commas between"),
            (["a.npy"], {"fs": 500, "leads": "II," * 200}, "400 characters at most"),
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
            assert "512 MiB at most; use `bedside analyze`" in (await answer.json())["error"]

    served(redis_server, body)


def test_a_viewer_has_only_their_own(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    users = tmp_path / "users.json"
    tokens, uploaded = users_file(users), DICOM.read_bytes()
    with changing(users) as file:
        file.users[OTHER] = User(role=Role.VIEWER)
        tokens[OTHER] = file.add_token(OTHER)

    async def ask(running: Dashboard, who: str, method: str, path: str = "", **sent: Any) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {tokens[who]}"}
        url = f"{running.url}api/analyses{path}"
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.request(method, url, **sent) as answer,
        ):
            return answer.status, json.loads(await answer.read())

    async def listed(running: Dashboard, who: str) -> list[tuple[str, str]]:
        _, told = await ask(running, who, "GET")
        return [(job["id"], job["who"]) for job in told["analyses"]]

    async def go() -> None:
        with dashboard(redis_server.url, users=users) as running:
            began = {}
            for who in (VIEWER, OTHER):
                status, job = await ask(running, who, "POST", json={"files": ["a.dcm"]})
                assert (status, job["who"]) == (201, who)
                began[who] = job["id"]
            mine, theirs = f"/{began[VIEWER]}", f"/{began[OTHER]}"
            sent, _ = await ask(running, VIEWER, "PUT", f"{mine}/files/a.dcm", data=uploaded)
            assert sent == 200
            while True:
                _, job = await ask(running, VIEWER, "GET", mine)
                if job["state"] == "done":
                    break
                await asyncio.sleep(0.1)
            # As if it were not there, whatever is asked of it.
            unknown = await ask(running, OTHER, "GET", "/unknown")
            assert unknown[0] == 404
            for path in (mine, *(f"{mine}/{result}" for result in desk.RESULTS)):
                assert await ask(running, OTHER, "GET", path) == unknown, path
            assert await ask(running, OTHER, "DELETE", mine) == unknown
            assert await ask(running, VIEWER, "PUT", f"{theirs}/files/a.dcm", data=b"") == unknown
            assert await listed(running, VIEWER) == [(began[VIEWER], VIEWER)]
            assert await listed(running, OTHER) == [(began[OTHER], OTHER)]
            assert await listed(running, OPERATOR) == [(began[who], who) for who in (OTHER, VIEWER)]
            assert (await ask(running, VIEWER, "GET", f"{mine}/result.json"))[0] == 200
            assert (await ask(running, OPERATOR, "GET", f"{mine}/result.json"))[0] == 200
            assert (await ask(running, OTHER, "DELETE", theirs))[0] == 200
            assert (await ask(running, OPERATOR, "DELETE", mine))[0] == 200
            assert await listed(running, OPERATOR) == []

    asyncio.run(asyncio.wait_for(go(), 120))


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


@pytest.mark.page
@needs_browser
def test_every_format_is_read_from_the_page(
    redis_server: EmbeddedServer, tmp_path: Path, artefacts: Path
) -> None:
    patient = PatientSimulator(3, duration_s=20.0, leads=("II", "V5"), fs=250.0)
    samples = patient.read(0, 5000)
    signal = {"fs": 250, "sig_name": ["II", "V5"], "units": ["mV"] * 2, "adc_gain": [1000] * 2}
    wfdb.wrsamp("ward", d_signal=samples, fmt=["16"] * 2, baseline=[0, 0], write_dir=str(tmp_path), **signal)
    # As the challenges of PhysioNet have it: MATLAB's version 4, whose head has 24 bytes.
    scipy.io.savemat(tmp_path / "challenge.mat", {"val": samples.T}, format="4")
    header = (tmp_path / "ward.hea").read_text()
    (tmp_path / "challenge.hea").write_text(
        header.replace("ward.dat 16", "challenge.mat 16+24").replace("ward", "challenge")
    )
    np.save(tmp_path / "holter.npy", samples / 1000)
    with dashboard(redis_server.url) as running, open_page() as page:
        page.goto(f"{running.url}?view=analyse")
        page.wait_for_selector("#with option:nth-child(2)", state="attached")
        figures = []
        page.set_input_files("#files", tmp_path / "holter.npy")
        page.wait_for_selector("text=does not say its sampling frequency")
        page.fill("#fs", "250")
        page.set_input_files("#files", tmp_path / "holter.npy")
        page.wait_for_selector("#words >> text=no axis of 12 leads; name the leads")
        page.fill("#names", "II, V5")
        for names in (["holter.npy"], ["ward.hea", "ward.dat"], ["challenge.mat", "challenge.hea"]):
            page.set_input_files("#files", [tmp_path / name for name in names])
            page.wait_for_selector(
                f"#result.done:has(h2:text-is('{names[0].split('.')[0]}'))", timeout=60_000
            )
            figures.append(page.inner_text("#figures"))
        page.screenshot(path=artefacts / "analyse-formats.png")
    assert "2: II V5" in figures[0]
    assert "250 Hz" in figures[0]
    assert figures == [figures[0]] * 3


@pytest.mark.page
@needs_browser
def test_a_recording_too_large_for_proxy_or_server_is_refused_in_words(
    redis_server: EmbeddedServer, tmp_path: Path
) -> None:
    users = tmp_path / "users.json"
    users_file(users)
    large = tmp_path / "large.dcm"
    with large.open("wb") as file:
        file.truncate(desk.UPLOAD_BYTES + 1)
    with (
        Proxy(strip=False) as before,
        dashboard(redis_server.url, users=users, names=[before.name], path=PREFIX) as running,
        open_page() as page,
    ):
        before.target = f"http://127.0.0.1:{running.port}"
        before.body_bytes = DICOM.stat().st_size - 1
        page.goto(f"{before.url}?view=analyse")
        sign_in(page, VIEWER)
        page.wait_for_selector("#with option >> nth=1", state="attached")
        page.set_input_files("#files", DICOM)
        page.wait_for_selector("text=refused (413): the proxy takes no file of this size")
        # Nothing is left of it, here or there.
        page.wait_for_selector("#nothing")
        assert page.locator("#jobs .job").count() == 0
        asked = f"{before.url}api/analyses"
        wait(page, lambda: page.request.get(asked).json()["analyses"] == [])
        sent: list[str] = []
        page.on("request", lambda request: sent.append(request.method))
        page.set_input_files("#files", large)
        page.wait_for_selector("text=large.dcm: 513 MiB are too much, 512 MiB at most; use `bedside analyze`")
        assert "POST" not in sent
        # What answers in the dashboard's place may also say yes.
        page.route("**/files/*", lambda route: route.fulfill(body="<html>Sign in</html>"))
        before.body_bytes = DICOM.stat().st_size
        page.set_input_files("#files", DICOM)
        page.wait_for_selector("text=what answers is not the dashboard")
        page.unroute("**/files/*")
        page.set_input_files("#files", DICOM)
        page.wait_for_selector("#result.done", timeout=60_000)


@pytest.mark.page
@needs_browser
def test_the_page_tells_an_operator_whose_an_analysis_is(
    redis_server: EmbeddedServer, tmp_path: Path, artefacts: Path
) -> None:
    users = tmp_path / "users.json"
    tokens = users_file(users)
    with dashboard(redis_server.url, users=users) as running, open_page() as page:
        for who in (VIEWER, OPERATOR):
            sent = {"Authorization": f"Bearer {tokens[who]}"}
            began = page.request.post(
                f"{running.url}api/analyses", data={"files": [f"{who[:4]}.dcm"]}, headers=sent
            )
            assert began.status == 201
        page.goto(f"{running.url}?view=analyse")
        sign_in(page, OPERATOR)
        expect(page.locator("#jobs .job .name")).to_have_text(["anna", "wall"])
        expect(page.locator("#jobs .job .model")).to_have_text(["", VIEWER])
        page.screenshot(path=artefacts / "analyse-operator.png")
        page.context.clear_cookies()
        page.reload()
        sign_in(page, VIEWER)
        expect(page.locator("#jobs .job .name")).to_have_text(["wall"])
        expect(page.locator("#jobs .job .model")).to_have_text([""])
        page.click("#discard")
        expect(page.locator("#nojobs")).to_contain_text("by nobody but you and operators.")

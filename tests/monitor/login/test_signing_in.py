"""The login of a running dashboard, as programs and browsers find it."""

from __future__ import annotations

import asyncio
import re
import shutil
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from bokeh.util.token import get_token_payload

from monitor.login.users import changing
from stream.bus import Bus
from stream.embedded import EmbeddedServer
from tests.monitor.login.people import OPERATOR, PASSWORD, PROGRAM, VIEWER, WRONG, users_file
from tests.monitor.serving import Dashboard, dashboard
from tests.stream.responder import responding
from tests.stream.turmoil import event, publish


class Browser:
    """Sends requests as a page of the dashboard does."""

    def __init__(self, http: aiohttp.ClientSession, running: Dashboard) -> None:
        self.http, self.url = http, running.url
        self.headers = {"Origin": running.url.rstrip("/")}

    async def sign_in(self, user: str, password: str = PASSWORD, **headers: str) -> tuple[int, Any]:
        return await self.post("login", {"user": user, "password": password}, **headers)

    async def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        sent = self.http.post(self.url + path, json=body, headers=self.headers | headers)
        async with sent as answer:
            return answer.status, await answer.json()

    async def get(self, path: str = "", **headers: str) -> tuple[int, str]:
        async with self.http.get(self.url + path, headers=headers) as answer:
            return answer.status, await answer.text()

    @property
    def cookie(self) -> Any:
        (cookie,) = self.http.cookie_jar
        return cookie


Body = Callable[[Browser, Bus, Dashboard, dict[str, str]], Awaitable[None]]


def served(server: EmbeddedServer, folder: Path, body: Body, **reach: Any) -> None:
    async def go() -> None:
        users = folder / "users.json"
        tokens = users_file(users)
        with dashboard(server.url, users=users, **reach) as running:
            # Cookies of an address, too; and whatever certificate.
            jar = aiohttp.CookieJar(unsafe=True)
            connector = aiohttp.TCPConnector(ssl=False)
            async with (
                aiohttp.ClientSession(cookie_jar=jar, connector=connector) as http,
                await Bus.connect(server.url) as bus,
            ):
                await asyncio.wait_for(body(Browser(http, running), bus, running, tokens), 100)

    asyncio.run(go())


def test_nobody_sees_anything_before_signing_in(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    async def body(browser: Browser, bus: Bus, running: Dashboard, tokens: dict[str, str]) -> None:
        for path in (
            "",
            "api/alarms",
            "api/alarms/stream",
            "api/audit",
            "autoload.js",
            "metadata",
            "nothing",
        ):
            status, text = await browser.get(path)
            assert (status, "sign in first" in text) == (401, True), path
        for path in ("ws", "api/alarms/ws"):
            with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
                await browser.http.ws_connect(browser.url + path, protocols=["bokeh", "x"])
        assert (await browser.post("api/beds/b/resume", {"who": "n"}))[0] == 401
        for path in ("healthz", "login", "api/me", "assets/login.js"):
            assert (await browser.get(path))[0] == 200, path
        # A person gets the page to sign in, wherever they wanted to go.
        status, text = await browser.get("?bed=bed-1", Accept="text/html,*/*")
        assert (status, 'id="password"' in text) == (401, True)

    served(redis_server, tmp_path, body)


def test_who_signs_in_gets_a_cookie_that_scripts_and_other_sites_do_not(
    redis_server: EmbeddedServer, tmp_path: Path
) -> None:
    async def body(browser: Browser, bus: Bus, running: Dashboard, tokens: dict[str, str]) -> None:
        assert await browser.sign_in(OPERATOR) == (200, {"user": OPERATOR, "role": "operator"})
        cookie = browser.cookie
        assert (cookie["path"], cookie["httponly"], cookie["samesite"]) == ("/", True, "Strict")
        assert (cookie["secure"], cookie["max-age"], cookie["expires"]) == ("", "", "")
        status, page = await browser.get()
        assert status == 200
        assert f'data-user="{OPERATOR}" data-role="operator"' in page
        # Bokeh writes a token of its own into the page, with nothing of ours in it.
        (token,) = re.findall(r'"token":"([^"]+)"', page)
        assert {name: get_token_payload(token)[name] for name in ("headers", "cookies")} == {
            "headers": {},
            "cookies": {},
        }
        async with browser.http.ws_connect(
            browser.url + "ws", protocols=["bokeh", token], headers=browser.headers
        ) as ws:
            assert '"ACK"' in await ws.receive_str()
        status, me = await browser.get("api/me")
        assert (status, OPERATOR in me) == (200, True)
        assert (await browser.post("logout", {}))[0] == 200
        assert (await browser.get("api/alarms"))[0] == 401

    served(redis_server, tmp_path, body)


def test_a_wrong_password_and_an_unknown_name_are_answered_alike(
    redis_server: EmbeddedServer, tmp_path: Path
) -> None:
    async def body(browser: Browser, bus: Bus, running: Dashboard, tokens: dict[str, str]) -> None:
        wrong = await browser.sign_in(OPERATOR, WRONG)
        assert wrong == (401, {"error": "name or password is wrong"})
        assert await browser.sign_in("nobody", WRONG) == wrong
        # Programs have no password, and an empty one is none.
        assert await browser.sign_in(PROGRAM, "") == wrong
        for headers in ({"Origin": "http://elsewhere.example"}, {"Origin": "null"}):
            assert (await browser.sign_in(OPERATOR, **headers))[0] == 403
        half = {"user": OPERATOR, "password": "\ud800" * 12}
        for nonsense in ([], {}, {"user": 1, "password": PASSWORD}, {"user": OPERATOR}, half):
            assert (await browser.post("login", nonsense))[0] == 400
        request = browser.http.post(
            browser.url + "login", data={"user": OPERATOR, "password": PASSWORD}, headers=browser.headers
        )
        async with request as answer:
            assert answer.status == 400, "a form of a page elsewhere could send it"

    served(redis_server, tmp_path, body)


def test_who_fails_often_has_to_wait(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    async def body(browser: Browser, bus: Bus, running: Dashboard, tokens: dict[str, str]) -> None:
        # At once: several in one moment gain nothing.
        answers = await asyncio.gather(*(browser.sign_in(OPERATOR, WRONG) for _ in range(8)))
        assert sorted(status for status, _ in answers) == [401] * 5 + [429] * 3
        status, answer = await browser.sign_in(OPERATOR)
        if status == 429:
            assert re.fullmatch(r"too many failed attempts: try again in \d s", answer["error"])
            await asyncio.sleep(float(re.findall(r"(\d+) s", answer["error"])[0]))
            status, _ = await browser.sign_in(OPERATOR)
        assert status == 200
        # It was only for that name.
        assert (await browser.sign_in(VIEWER))[0] == 200

    served(redis_server, tmp_path, body)


def test_viewers_may_not_and_operators_are_recorded_under_their_name(
    redis_server: EmbeddedServer, tmp_path: Path
) -> None:
    async def body(browser: Browser, bus: Bus, running: Dashboard, tokens: dict[str, str]) -> None:
        await publish(bus, event(1))
        async with responding(redis_server.url) as taken:
            await browser.sign_in(VIEWER)
            for path in ("alarms/alarm-1/acknowledge", "beds/bed-1/acknowledge", "beds/bed-1/pause"):
                status, answer = await browser.post(f"api/{path}", {"who": "somebody", "seconds": 60})
                assert (status, answer["error"][:32]) == (403, "wall 3 is signed in as a viewer:")
            assert taken == []
            await browser.sign_in(OPERATOR)
            status, audit = await browser.post("api/alarms/alarm-1/acknowledge", {"who": "somebody else"})
            assert (status, audit["who"], taken[-1].who) == (200, OPERATOR, OPERATOR)
            status, audit = await browser.post("api/beds/bed-1/acknowledge", {})
            assert (status, audit["who"], taken[-1].value) == (200, OPERATOR, None)
            # A program sends its token with each request, and no origin.
            browser.http.cookie_jar.clear()
            sent = {"Authorization": f"Bearer {tokens[PROGRAM]}"}
            request = browser.http.post(
                browser.url + "api/beds/bed-1/pause", json={"seconds": 60}, headers=sent
            )
            async with request as answered:
                assert (answered.status, (await answered.json())["who"]) == (200, PROGRAM)
            async with browser.http.ws_connect(browser.url + "api/alarms/ws?since=1h", headers=sent) as ws:
                assert (await ws.receive_json())["alarm"] == "alarm-1"

    served(redis_server, tmp_path, body)


def test_a_session_that_is_over_ends_its_connections_too(
    redis_server: EmbeddedServer, tmp_path: Path
) -> None:
    async def body(browser: Browser, bus: Bus, running: Dashboard, tokens: dict[str, str]) -> None:
        sent = {"Authorization": f"Bearer {tokens[PROGRAM]}"}
        async with aiohttp.ClientSession() as program:
            lasting = await program.ws_connect(running.url + "api/alarms/ws", headers=sent)
            await browser.sign_in(OPERATOR)
            async with browser.http.ws_connect(browser.url + "api/alarms/ws", headers=browser.headers) as ws:
                assert "heartbeat" in await ws.receive_json()
                running.leap()
                while (message := await ws.receive()).type is aiohttp.WSMsgType.TEXT:
                    pass
                assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
            assert (await browser.get("api/alarms"))[0] == 401
            # A token has no end, but it can be taken away.
            assert "heartbeat" in await lasting.receive_json()
            with changing(tmp_path / "users.json") as file:
                file.users[PROGRAM] = file.users[PROGRAM].model_copy(update={"tokens": ()})
            while (message := await lasting.receive()).type is aiohttp.WSMsgType.TEXT:
                pass

    served(redis_server, tmp_path, body)


def test_pages_say_what_browsers_may_do_with_them(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    async def body(browser: Browser, bus: Bus, running: Dashboard, tokens: dict[str, str]) -> None:
        await browser.sign_in(VIEWER)
        policies = []
        for path in ("", "", "login", "api/me", "nothing", "healthz", "assets/page.css"):
            async with browser.http.get(browser.url + path) as answer:
                headers = answer.headers
                assert headers["X-Content-Type-Options"] == "nosniff", path
                assert headers["X-Frame-Options"] == "SAMEORIGIN", path
                assert headers["Referrer-Policy"] == "same-origin", path
                assert headers["Cache-Control"] == "no-store", path
                policies.append(headers["Content-Security-Policy"])
                assert "default-src 'none'" in policies[-1]
                assert "unsafe-inline" not in policies[-1].partition("script-src")[2].partition(";")[0]
        assert policies[0] != policies[1], "each page has a nonce of its own"
        assert policies[2] == policies[3]
        async with browser.http.get(browser.url + "assets/page.css?v=1") as answer:
            assert "max-age" in answer.headers["Cache-Control"]

    served(redis_server, tmp_path, body)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_over_tls_the_cookie_goes_nowhere_else(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    made = ["-subj", "/CN=localhost", "-keyout", key, "-out", certificate]
    subprocess.run(["openssl", "req", "-x509", *kind, *made], check=True, capture_output=True)

    async def body(browser: Browser, bus: Bus, running: Dashboard, tokens: dict[str, str]) -> None:
        assert running.url.startswith("https://")
        assert (await browser.sign_in(OPERATOR))[0] == 200
        assert browser.cookie["secure"] is True
        assert (await browser.get())[0] == 200
        known = ssl.create_default_context(cafile=certificate)
        known.check_hostname = False
        async with browser.http.get(f"{running.url}healthz", ssl=known) as answer:
            assert answer.status == 200

    served(redis_server, tmp_path, body, tls=[certificate, key])

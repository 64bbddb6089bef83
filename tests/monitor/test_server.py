from __future__ import annotations

import asyncio
import re
import signal
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from monitor.server import MonitorError, Reach, serve
from stream.embedded import EmbeddedServer
from tests.monitor.login.people import users_file
from tests.monitor.serving import dashboard


def test_a_port_in_use_is_one_clear_line(redis_server: EmbeddedServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MonitorError, match=rf"^port {port} on 127.0.0.1 is in use: .*another port$"):
            serve(redis_server.url, port=port)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4", "::", "monitor.example", ""])
def test_without_a_login_only_this_machine_is_served(redis_server: EmbeddedServer, host: str) -> None:
    with pytest.raises(MonitorError, match=r"needs a login: make users with `bedside users add") as caught:
        serve(redis_server.url, reach=Reach(host=host, port=0))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("reach", "words"),
    [
        ({"names": ["monitor.example"]}, "public name monitor.example: .* needs a login"),
        ({"names": ["https://monitor.example/"], "users": True}, "give HOST or HOST:PORT"),
        ({"path": "bedside"}, "prefix 'bedside': give a path, as in /bedside"),
        ({"users": False}, "there is no users file .*`bedside users add"),
        ({"tls": (Path("no.pem"), Path("no.key"))}, "cannot use certificate no.pem with key no.key: No such"),
    ],
)
def test_what_makes_no_sense_is_one_clear_line(tmp_path: Path, reach: dict[str, Any], words: str) -> None:
    if "users" in reach:
        users_file(tmp_path / "users.json") if reach["users"] else None
        reach = reach | {"users": tmp_path / "users.json"}
    with pytest.raises(MonitorError, match=words) as caught:
        serve("redis://nowhere.invalid", reach=Reach(port=0, **reach))
    assert "\n" not in str(caught.value)


def test_a_missing_redis_server_is_one_clear_line(short_tmp: Path) -> None:
    with pytest.raises(MonitorError, match="cannot use the Redis server at") as caught:
        serve(f"unix://{short_tmp}/none.sock", port=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_told_to_stop(redis_server: EmbeddedServer, number: signal.Signals) -> None:
    with dashboard(redis_server.url) as running:
        status, health = running.health()
        assert status == 200
        assert health["ok"] is True
        assert health["pages"] == 0
        with urllib.request.urlopen(running.url, timeout=30) as answer:
            page = answer.read().decode()
        assert "never the only source of alarms" in page
        # Hospital networks have no internet.
        fetched = re.findall(r"""(?:src|href)\s*=\s*["']([^"']+)""", page)
        assert any("static/js" in source for source in fetched)
        assert not [source for source in fetched if "//" in source and not source.startswith(running.url)]
        running.process.send_signal(number)
        assert running.process.wait(10) == 0


def test_health_says_when_redis_is_lost(redis_server: EmbeddedServer) -> None:
    with dashboard(redis_server.url) as running:
        redis_server.stop()
        while running.health()[0] == 200:
            pass
        status, health = running.health()
        assert (status, health["redis"], health["ok"]) == (503, "lost", False)
        redis_server.start()
        while running.health()[0] != 200:
            pass


def test_another_site_cannot_open_a_page_s_connection(redis_server: EmbeddedServer) -> None:
    async def connect(address: str, origin: str) -> None:
        request = HTTPRequest(f"ws{address.removeprefix('http')}ws", headers={"Origin": origin})
        (await websocket_connect(request)).close()

    with dashboard(redis_server.url) as running, pytest.raises(HTTPClientError, match="403"):
        asyncio.run(connect(running.url, "http://elsewhere.example"))


def test_files_outside_of_the_static_folder_are_not_served(redis_server: EmbeddedServer) -> None:
    with dashboard(redis_server.url) as running:
        with urllib.request.urlopen(f"{running.url}assets/page.css", timeout=10) as answer:
            assert answer.status == 200
        with pytest.raises(urllib.error.HTTPError, match=r"40[34]"):
            urllib.request.urlopen(f"{running.url}assets/..%2fserver.py", timeout=10)

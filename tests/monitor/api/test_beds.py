"""Beds over HTTP: what is in force, what can be chosen, and changing it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from models.bundle import list_bundles
from stream.bed_settings import SettingsBook
from stream.bus import Bus
from stream.embedded import EmbeddedServer
from tests.monitor.serving import dashboard
from tests.stream.responder import REFUSES, responding
from tests.stream.test_bed_settings import BedState, in_force

Body = Callable[[aiohttp.ClientSession, Bus], Awaitable[None]]


def served(server: EmbeddedServer, body: Body) -> None:
    async def go() -> None:
        with dashboard(server.url) as running:
            async with aiohttp.ClientSession(running.url) as http, await Bus.connect(server.url) as bus:
                await asyncio.wait_for(body(http, bus), 60)

    asyncio.run(go())


def test_a_bed_says_what_is_in_force_and_what_it_could_choose(redis_server: EmbeddedServer) -> None:
    async def body(http: aiohttp.ClientSession, bus: Bus) -> None:
        async def connected() -> Bus:
            return bus

        async with http.get("/api/beds/ICU%201") as answer:
            assert answer.status == 404
            assert (await answer.json())["error"] == "bed ICU 1 has not been heard by any worker"
        one = in_force(BedState(session="s", model="cae-100hz")).model_copy(update={"bed": "ICU 1"})
        await SettingsBook(connected).write([one])
        async with http.get("/api/beds/ICU%201") as answer:
            assert (answer.status, await answer.json()) == (200, one.model_dump(mode="json"))
        await bus.client.hset("bedside:settings", "icu-2", '{"v": 9}')
        async with http.get("/api/beds/icu-2") as answer:
            assert answer.status == 502
            assert "another version" in (await answer.json())["error"]
        async with http.get("/api/models") as answer:
            assert answer.status == 200
            models = await answer.json()
        assert [model["name"] for model in models] == list_bundles()
        for model in models:
            assert "100 Hz" in model["description"]
            assert model["thresholds"]["fp32"] > 0
            assert model["alarm"].keys() == {"k", "n", "clear"}
        redis_server.stop()
        async with http.get("/api/beds/icu-1") as answer:
            assert answer.status == 503

    served(redis_server, body)


def test_changes_are_answered_by_the_worker(redis_server: EmbeddedServer) -> None:
    who = {"who": "nurse 7"}
    asked: list[tuple[str, dict[str, Any], str, Any]] = [
        ("model", {"value": "vae-bilstm-100hz"}, "set_model", "vae-bilstm-100hz"),
        ("model", {"value": None}, "set_model", None),
        ("threshold", {"value": 5.25}, "set_threshold", 5.25),
        ("threshold", {"value": None}, "set_threshold", None),
        ("limits", {"value": {"vt_bpm": 120, "vf_s": None}}, "set_limits", {"vt_bpm": 120, "vf_s": None}),
        ("limits", {"value": None}, "set_limits", None),
        ("baseline", {}, "confirm_baseline", None),
        ("admit", {}, "admit", None),
        ("admit", {"value": "same"}, "admit", "same"),
        ("discharge", {}, "discharge", None),
    ]
    refused: list[tuple[str, dict[str, Any]]] = [
        *[(what, dict(who)) for what in ("model", "threshold", "limits")],
        ("model", who | {"value": 7}),
        ("model", who | {"value": ""}),
        ("threshold", who | {"value": "5"}),
        ("threshold", who | {"value": True}),
        ("limits", who | {"value": {}}),
        ("limits", who | {"value": 5}),
        ("limits", who | {"value": {"vt_bpm": "fast"}}),
        ("admit", who | {"value": "Jane Doe"}),
        ("discharge", {}),
        ("discharge", {"who": ""}),
    ]

    async def body(http: aiohttp.ClientSession, bus: Bus) -> None:
        async with responding(redis_server.url) as taken:

            async def post(bed: str, what: str, body: Any) -> tuple[int, Any]:
                async with http.post(f"/api/beds/{bed}/{what}", json=body) as answer:
                    return answer.status, await answer.json()

            for what, given, kind, value in asked:
                status, audit = await post("ICU%201", what, who | given)
                assert (status, audit["done"], audit["who"]) == (200, True, "nurse 7")
                command = taken[-1]
                assert audit["entry"] == command.id
                assert (command.bed, command.kind, command.value) == ("ICU 1", kind, value)
            for what, wrong in refused:
                status, answer = await post("icu-1", what, wrong)
                assert (status, bool(answer["error"])) == (400, True), (what, wrong)
            assert len(taken) == len(asked)
            status, audit = await post(REFUSES, "model", who | {"value": "cae-100hz"})
            assert (status, audit["done"], audit["message"]) == (409, False, "there is no such bed here")
            # Reading is not asking, and asking is not reading.
            async with http.get("/api/beds/icu-1/model") as answer:
                assert answer.status == 405
            async with http.post("/api/models", json=who) as answer:
                assert answer.status == 405

    served(redis_server, body)

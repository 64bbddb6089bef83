"""What is in force for a bed: what is said of it, where it lies, and how people ask for it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from models.manifest import AlarmRule, Thresholds
from stream import topics
from stream.alarms.criteria import Criteria
from stream.alarms.state import BedState, Said, Stay
from stream.bed_settings import BedSettings, SettingsBook, read_settings, settings_of
from stream.bus import Bus
from stream.contract import Command, MalformedMessageError, Vitals
from stream.embedded import EmbeddedServer
from stream.vitals.rhythm import Limits
from tests import command_line
from tests.stream.responder import REFUSES, responding

CRITERIA = Criteria(
    "cae-100hz",
    Thresholds(record=1.6, window=4.0, quantiles=(-2.0, 3.0)),
    AlarmRule(k=3, n=5, clear=1),
)
# A quarter past seven in Greenwich, 2023.
VITALS_OF = Vitals(
    bed="icu-1",
    session="s",
    start=0,
    end=1,
    t_end=1,
    heart_rate=None,
    rr_irregularity=None,
    beats=(),
    quality={},
    issues={},
    ingest_ns=1,
)
T = 1_700_000_000_000_000_000


def in_force(state: BedState, **limits: float) -> BedSettings:
    return settings_of("icu-1", state, CRITERIA, "cae-100hz", Limits(**limits).model_dump(), T)  # type: ignore[arg-type]


def test_each_value_says_where_it_comes_from() -> None:
    now = in_force(BedState(session="s", model="cae-100hz"))
    assert (now.model, now.chosen_model, now.own_model) == ("cae-100hz", None, "cae-100hz")
    assert (now.threshold, now.threshold_from, now.stored_threshold) == (4.0, "model", 4.0)
    assert (now.patient_threshold, now.patient_limits, now.admitted_t, now.said) == (None, {}, None, {})
    assert now.limits == Limits().model_dump()
    stay = Stay(threshold=5.0, session="s", said={"threshold": Said(who="a", t=T)})
    now = in_force(BedState(session="s", model="cae-100hz", stay=stay))
    assert (now.threshold, now.threshold_from, now.stored_threshold) == (5.0, "set", 4.0)
    stay.said = {"baseline": Said(who="a", t=T)}
    now = in_force(BedState(session="s", model="cae-100hz", stay=stay))
    assert (now.threshold, now.threshold_from) == (5.0, "baseline")
    # Behind another device it does not count, and is not forgotten.
    now = in_force(BedState(session="another", model="cae-100hz", stay=stay))
    assert (now.threshold, now.threshold_from, now.patient_threshold) == (4.0, "model", 5.0)
    assert not now.confirmed


def test_what_a_worker_writes_is_read(redis_server_module: EmbeddedServer, prefix: str) -> None:
    one = in_force(BedState(session="s", model="cae-100hz"))

    async def main() -> None:
        async with await Bus.connect(redis_server_module.url, prefix=prefix) as bus:

            async def connected() -> Bus:
                return bus

            assert await read_settings(bus, "icu-1") is None
            book = SettingsBook(connected)
            await book.write([])
            await book.write([one, one.model_copy(update={"bed": "icu-2"})])
            assert await read_settings(bus, "icu-1") == one
            found: Any = await bus.client.hkeys(f"{prefix}settings")
            assert sorted(found) == [b"icu-1", b"icu-2"]
            # Fields of a later version are skipped; another version is not guessed at.
            later = one.model_dump(mode="json") | {"more": 1}
            await bus.client.hset(f"{prefix}settings", "icu-1", json.dumps(later))
            assert await read_settings(bus, "icu-1") == one
            await bus.client.hset(f"{prefix}settings", "icu-1", json.dumps(later | {"v": 2}))
            with pytest.raises(MalformedMessageError, match="v:"):
                await read_settings(bus, "icu-1")

    asyncio.run(main())


# ---- the command line ------------------------------------------------------------------------------------


async def bed(server: EmbeddedServer, *arguments: str) -> tuple[int, str, str]:
    # In a thread, while the event loop answers.
    done = await asyncio.to_thread(command_line.run, "bed", *arguments, "--redis", server.url)
    return done.returncode, done.stdout, done.stderr


def test_beds_are_changed_from_the_command_line(redis_server: EmbeddedServer) -> None:
    who = ("--who", "dr lee")
    asked: dict[tuple[str, ...], tuple[str, Any]] = {
        ("set-model", "icu-1", "vae-bilstm-100hz"): ("set_model", "vae-bilstm-100hz"),
        ("set-model", "icu-1", "--own"): ("set_model", None),
        ("set-threshold", "icu-1", "5.25"): ("set_threshold", 5.25),
        ("set-threshold", "icu-1", "--reset"): ("set_threshold", None),
        ("set-limits", "icu-1", "vt_bpm=120", "vf_s="): ("set_limits", {"vt_bpm": 120.0, "vf_s": None}),
        ("set-limits", "icu-1", "--reset"): ("set_limits", None),
        ("confirm-baseline", "icu-1"): ("confirm_baseline", None),
        ("admit", "icu-1"): ("admit", None),
        ("admit", "icu-1", "--same"): ("admit", "same"),
        ("discharge", "icu-1"): ("discharge", None),
    }
    wrong: list[tuple[str, ...]] = [
        ("set-model", "icu-1"),
        ("set-model", "icu-1", "cae-100hz", "--own"),
        ("set-model", "icu-1", ""),
        ("set-threshold", "icu-1"),
        ("set-threshold", "icu-1", "high"),
        ("set-threshold", "icu-1", "nan"),
        ("set-threshold", "icu-1", "5", "--reset"),
        ("set-limits", "icu-1"),
        ("set-limits", "icu-1", "vt_bpm"),
        ("set-limits", "icu-1", "vt_bpm=fast"),
        ("set-limits", "icu-1", "=120"),
        ("discharge", "*"),
        ("discharge", "icu-1", "--who", ""),
    ]

    async def main() -> None:
        async with responding(redis_server.url) as taken:
            for arguments, (kind, value) in asked.items():
                assert await bed(redis_server, *arguments, *who) == (0, "icu-1: as you say\n", "")
                command: Command = taken[-1]
                assert (command.kind, command.value, command.who) == (kind, value, "dr lee"), arguments
            assert len(taken) == len(asked)
            for arguments in wrong:
                code, out, err = await bed(redis_server, *arguments)
                assert (code, out) == (2, ""), arguments
                assert "Error: " in err
            assert len(taken) == len(asked)
            code, out, err = await bed(redis_server, "set-model", REFUSES, "cae-100hz")
            assert (code, out) == (1, "")
            assert err == "bedside: set_model refused: there is no such bed here\n"
            code, out, err = await bed(redis_server, "discharge", "icu-1", "--json")
            assert (code, json.loads(out)["entry"], err) == (0, taken[-1].id, "")
            code, out, err = await bed(redis_server, "discharge", REFUSES, "--json")
            assert (code, json.loads(out)["done"]) == (1, False)

    asyncio.run(main())


def test_what_is_in_force_is_shown(redis_server: EmbeddedServer) -> None:
    said = {
        what: Said(who=who, t=T) for what, who in (("model", "ann"), ("baseline", "bo"), ("limits", "cy"))
    }
    stay = Stay(
        model="cae-100hz", threshold=5.0, limits={"vt_bpm": 120.0}, said=said, session="s", admitted_t=T
    )

    async def main() -> None:
        assert await bed(redis_server, "show", "icu-1") == (
            1,
            "",
            "bedside: bed icu-1 has not been heard by any worker\n",
        )
        async with await Bus.connect(redis_server.url) as bus:

            async def connected() -> Bus:
                return bus

            one = in_force(BedState(session="s", model="cae-100hz", stay=stay), vt_bpm=120.0)
            await SettingsBook(connected).write([one])
            code, out, _ = await bed(redis_server, "show", "icu-1", "--json")
            assert (code, BedSettings.model_validate_json(out)) == (0, one)
            assert json.loads(out)["clock_skew_s"] is None
            for session, skew_s in (("s", -0.25), ("of another feed", 9.0)):
                vitals = VITALS_OF.model_copy(update={"session": session, "clock_skew_s": skew_s})
                await bus.publish(topics.VITALS, b"icu-1", vitals.encode())
                code, out, _ = await bed(redis_server, "show", "icu-1")
                known = (
                    "is 0.250 s ahead of where it was" if session == "s" else "nothing known of the device"
                )
                assert known in out
            for words in (
                "icu-1, session s\n",
                "cae-100hz, chosen by ann at 2023-11-",
                "5.00, from this patient's own ECG by bo at ",
                "; the model's is 4.00\n",
                "bradycardia_bpm 40, ",
                "vt_bpm 120*, ",
                "* set for this patient by cy at ",
                "a patient\n",
            ):
                assert words in out, out
            assert "another device" not in out
            other = in_force(BedState(session="t", model="cae-100hz", stay=stay))
            await SettingsBook(connected).write([other])
            code, out, _ = await bed(redis_server, "show", "icu-1")
            assert "4.00, the model's, from validation normals\n" in out
            assert "another device feeds the bed" in out
            assert "*" not in out

    asyncio.run(main())

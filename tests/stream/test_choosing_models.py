"""Choosing the model of a bed, as users do it: a real worker that is asked, fed, killed and asked again."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import models.bundle
from bench.ward import Ward
from models.backends import open_session
from models.bundle import GoldenData, load_bundle, write_bundle
from models.session import Session
from stream import asking, topics
from stream.bed_settings import BedSettings, read_settings
from stream.bus import Bus
from stream.clock import SystemClock
from stream.contract import (
    AlarmEvent,
    Audit,
    Command,
    CommandKind,
    Finding,
    Presence,
    SampleChunk,
)
from stream.offline import run
from tests.stream.test_worker import (
    FALLS_ILL,
    PATIENCE_S,
    Received,
    collect,
    feed,
    in_ward,
    interleaved,
    patient,
    publish,
)

OWN, OTHER, THIRD = "cae-100hz", "vae-bilstm-100hz", "vae-bilstm-mha-100hz"


@pytest.fixture(scope="module")
def sessions(shipped: Session) -> dict[str, Session]:
    return {OWN: shipped, **{name: open_session(load_bundle(name)) for name in (OTHER, THIRD)}}


def models_of(received: Received, bed: str) -> list[str]:
    """Return which models judged a bed, in the order in which they did."""
    return list(dict.fromkeys(finding.model for finding in received.findings if finding.bed == bed))


def assert_judged_by_its_model(
    received: Received, feeds: dict[str, list[SampleChunk]], sessions: dict[str, Session]
) -> None:
    """Every window of every bed is there, and says what the analysis of the file with its model says."""
    for bed, chunks in feeds.items():
        found = {finding.window: finding for finding in received.findings if finding.bed == bed}
        said = {
            name: {finding.window: finding for finding in run(chunks, session).findings}
            for name, session in sessions.items()
            if name in {finding.model for finding in found.values()}
        }
        assert found.keys() == next(iter(said.values())).keys(), "a finding was lost"
        for window, finding in found.items():
            expected = said[finding.model][window]
            assert finding.score == pytest.approx(expected.score, rel=1e-5, abs=1e-6)
            assert finding.threshold == sessions[finding.model].manifest.thresholds["fp32"].window
            assert (finding.anomalous, finding.reason) == (expected.anomalous, expected.reason)


def until(feeds: dict[str, list[SampleChunk]], windows: int) -> Callable[[Received], bool]:
    wanted = {(bed, window) for bed in feeds for window in range(windows)}
    return lambda received: wanted <= received.windows.keys()


async def settings(bus: Bus, bed: str) -> BedSettings:
    found = await read_settings(bus, bed)
    assert found is not None
    return found


def test_models_change_under_load_and_no_finding_is_lost(
    short_tmp: Path, sessions: dict[str, Session]
) -> None:
    feeds = {f"bed-{seed}": feed(f"bed-{seed}", patient(seed, "", 40.0)) for seed in range(6)}
    # 40 s less the first 8, two a second.
    windows = 65

    async def test(ward: Ward, bus: Bus) -> None:
        publishing = asyncio.ensure_future(publish(bus, interleaved(list(feeds.values())), pause_s=0.003))
        await collect(bus, lambda received: len(received.findings) >= 60)
        answers = await asyncio.gather(
            asking.set_model(bus, "bed-1", OTHER, who="nurse"),
            asking.set_model(bus, "bed-2", THIRD, who="nurse"),
            asking.set_model(bus, "bed-3", OTHER, who="nurse"),
        )
        assert [answer.message for answer in answers] == [
            f"{name} judges from now on" for name in (OTHER, THIRD, OTHER)
        ]
        answered = [entry.id async for entry in bus.kept(topics.AUDIT) if b"set_model" in entry.value]
        await collect(bus, lambda received: len(received.findings) >= 200)
        back = await asking.set_model(bus, "bed-3", None, who="nurse")
        assert (back.message, back.value) == (
            f"{OWN} judges from now on",
            {"asked": None, "before": OTHER, "after": OWN},
        )
        await publishing
        received = await collect(bus, until(feeds, windows))
        assert_judged_by_its_model(received, feeds, sessions)
        assert models_of(received, "bed-0") == [OWN]
        assert models_of(received, "bed-1") == [OWN, OTHER]
        assert models_of(received, "bed-2") == [OWN, THIRD]
        assert [f.model for f in received.findings if f.bed == "bed-3"][-1] == OWN
        for bed in feeds:
            numbers = [finding.window for finding in received.findings if finding.bed == bed]
            assert numbers == list(range(windows)), "out of order, or twice"
        # From the answer on there is no word of the model before.
        after = [
            Finding.decode(entry.value)
            async for entry in bus.kept(topics.FINDINGS)
            if time_of(entry.id) > max(map(time_of, answered))
        ]
        assert {f.model for f in after if f.bed == "bed-1"} == {OTHER}
        assert {f.model for f in after if f.bed == "bed-2"} == {THIRD}

    in_ward(short_tmp, test)


def time_of(position: str) -> int:
    return int(position.partition("-")[0])


def test_a_choice_survives_kill_9_and_ends_with_the_patient(
    short_tmp: Path, sessions: dict[str, Session]
) -> None:
    feeds = {f"bed-{seed}": feed(f"bed-{seed}", patient(seed, "", 60.0)) for seed in range(2)}
    first, second, third = (
        [chunk for chunks in feeds.values() for chunk in chunks[begin:end]]
        for begin, end in ((0, 100), (100, 200), (200, -1))
    )

    async def test(ward: Ward, bus: Bus) -> None:
        await publish(bus, first)
        await collect(bus, until(feeds, 25))
        answer = await asking.set_model(bus, "bed-1", OTHER, who="nurse")
        assert answer.done
        # Answered is written: nothing is given time to be.
        ward.children.pop("worker").kill()
        ward.start_worker("second")
        await publish(bus, second)
        received = await collect(bus, until(feeds, 65))
        assert models_of(received, "bed-0") == [OWN]
        assert models_of(received, "bed-1") == [OWN, OTHER]
        now = await settings(bus, "bed-1")
        assert (now.model, now.chosen_model, now.own_model) == (OTHER, OTHER, OWN)
        assert now.said["model"].who == "nurse"
        gone = await asking.discharge(bus, "bed-1", who="nurse")
        assert gone.message == f"discharged; {OWN} judges from now on"
        now = await settings(bus, "bed-1")
        assert (now.model, now.chosen_model, now.said) == (OWN, None, {})
        await publish(bus, third)
        # No window of the next patient holds anything of the one before: discharged after 40 s, the first
        # one begins there.
        wanted = {("bed-0", window) for window in range(104)} | {
            ("bed-1", window) for window in range(80, 104)
        }
        received = await collect(bus, lambda received: wanted <= received.windows.keys())
        judged = {finding.window: finding for finding in received.findings if finding.bed == "bed-1"}
        assert judged.keys() == {*range(65), *range(80, 104)}
        assert {judged[window].model for window in range(80, 104)} == {OWN}
        assert_judged_by_its_model(received, {"bed-0": feeds["bed-0"][:-1]}, sessions)
        said = {name: run(feeds["bed-1"], sessions[name]).findings for name in (OWN, OTHER)}
        for window, finding in judged.items():
            expected = said[finding.model][window]
            assert finding.score == pytest.approx(expected.score, rel=1e-5, abs=1e-6)

    in_ward(short_tmp, test)


def test_what_belongs_to_a_model_ends_with_it(short_tmp: Path) -> None:
    chunks = feed("icu-1", patient(1, FALLS_ILL, 45.0))[:-1]

    async def test(ward: Ward, bus: Bus) -> None:
        await publish(bus, chunks)
        received = await collect(bus, lambda r: any(e.rule == "anomaly" for e in r.events))
        raised = next(event for event in received.events if event.rule == "anomaly")
        await collect(bus, until({"icu-1": chunks}, 73))
        assert (await asking.set_limits(bus, "icu-1", {"tachycardia_bpm": 150}, who="a")).done
        assert (await asking.set_threshold(bus, "icu-1", 5.5, who="b")).done
        now = await settings(bus, "icu-1")
        assert (now.threshold, now.threshold_from, now.patient_threshold) == (5.5, "set", 5.5)
        assert now.stored_threshold == load_bundle(OWN).manifest.thresholds["fp32"].window
        assert (now.limits["tachycardia_bpm"], now.limits["bradycardia_bpm"]) == (150, 40)
        assert {what: said.who for what, said in now.said.items()} == {"limits": "a", "threshold": "b"}
        answer = await asking.set_model(bus, "icu-1", OTHER, who="c")
        assert answer.message == (
            f"{OTHER} judges from now on; the threshold 5.5 was for {OWN} and is dropped;"
            f" the alarm of {OWN} has ended"
        )
        events = [AlarmEvent.decode(entry.value) async for entry in bus.kept(topics.ALARMS)]
        ended = [event for event in events if event.alarm == raised.alarm][-1]
        assert (ended.presence, ended.who) == (Presence.OFF, "c")
        assert ended.message == f"the model was changed by c: {OTHER} judges from now on"
        now = await settings(bus, "icu-1")
        assert (now.threshold_from, now.patient_threshold) == ("model", None)
        assert now.threshold == load_bundle(OTHER).manifest.thresholds["fp32"].window
        assert now.patient_limits == {"tachycardia_bpm": 150}
        # Ten minutes of the other model are no baseline for this one.
        refused = await asking.confirm_baseline(bus, "icu-1", who="c")
        assert (refused.done, refused.message.partition(";")[2]) == (False, " there are 0 s so far")

    in_ward(short_tmp, test)


# ---- models that are refused -----------------------------------------------------------------------------

# A worker like any other, with other models beside its own.
_WITH_MODELS = """
import sys
from pathlib import Path
import bedside, models.bundle

models.bundle._ZOO = Path(sys.argv[1])
sys.argv = ["bedside", "worker", *sys.argv[2:], "--metrics-port", "0"]
bedside.main()
"""


@pytest.fixture
def zoo(tmp_path: Path) -> Iterator[Path]:
    """Give the shipped models in a folder of the test's own."""
    folder = tmp_path / "zoo"
    shutil.copytree(models.bundle._ZOO, folder)
    return folder


def damage(zoo: Path, name: str) -> None:
    file = zoo / name / "model-fp32.onnx"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def copy_under(zoo: Path, name: str, **changes: Any) -> Path:
    folder = zoo / name
    shutil.copytree(zoo / OTHER, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"name": name} | changes))
    return folder


def break_parity(zoo: Path, name: str) -> None:
    """Have a bundle whose files are as its manifest says, and whose network computes something else."""
    folder = copy_under(zoo, name)
    bundle = load_bundle(folder)
    golden = bundle.golden("fp32")
    outputs = golden.outputs | {"recon_mean": golden.outputs["recon_mean"] + np.float32(0.1)}
    files = {file: bundle.read(file) for file in bundle.manifest.sha256}
    files[bundle.manifest.golden["fp32"].file] = GoldenData(
        golden.x, golden.mask, outputs, golden.scores
    ).to_bytes()
    write_bundle(folder, bundle.manifest, files)


def with_models(directory: Path, zoo: Path, test: Callable[[Ward, Bus], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        with Ward(directory, scorer=("-c", _WITH_MODELS, str(zoo))) as ward:
            await ward.ready()
            async with await ward.connect() as bus:
                await test(ward, bus)
            ward.check()

    asyncio.run(main())


def test_a_model_that_cannot_be_used_is_refused_and_the_bed_goes_on(short_tmp: Path, zoo: Path) -> None:
    chunks = feed("icu-1", patient(1, "", 40.0))
    break_parity(zoo, "untrue")
    damage(zoo, THIRD)
    window = json.loads((zoo / OTHER / "manifest.json").read_text())["window"]
    copy_under(zoo, "faster", window=window | {"hop": 25})
    refusals = {
        "nonsense": f"no model 'nonsense': choose from {OWN}, faster, untrue, {OTHER}, {THIRD}",
        f"./{OTHER}": f"no model './{OTHER}': choose from",
        THIRD: f"model '{THIRD}' refused: ",
        "untrue": "model 'untrue' refused: onnxruntime fp32 does not reproduce its golden recon_mean",
        "faster": f"model 'faster' sees other windows than this worker's own model, '{OWN}'",
    }

    async def test(ward: Ward, bus: Bus) -> None:
        await publish(bus, chunks[:100])
        await collect(bus, until({"icu-1": chunks}, 25))
        for name, words in refusals.items():
            answer = await asking.set_model(bus, "icu-1", name, who="nurse")
            assert (answer.done, answer.kind, answer.who) == (False, "set_model", "nurse")
            assert answer.message.startswith(words)
            assert "\n" not in answer.message
        assert (await settings(bus, "icu-1")).chosen_model is None
        nobody = await asking.set_model(bus, "icu-9", OTHER, who="nurse")
        assert nobody.message == "bed icu-9 has not been heard"
        await publish(bus, chunks[100:])
        received = await collect(bus, until({"icu-1": chunks}, 65))
        assert models_of(received, "icu-1") == [OWN]
        assert all(finding.score is not None for finding in received.findings)
        assert not received.events

    with_models(short_tmp, zoo, test)


def test_a_bed_whose_model_is_not_there_says_so_and_is_never_judged_by_another(
    short_tmp: Path, zoo: Path
) -> None:
    chunks = feed("icu-1", patient(1, "", 60.0))[:-1]
    feeds = {"icu-1": chunks}

    async def test(ward: Ward, bus: Bus) -> None:
        await publish(bus, chunks[:100])
        await collect(bus, until(feeds, 25))
        assert (await asking.set_model(bus, "icu-1", OTHER, who="nurse")).done
        # The next worker has another copy of that model, which does not load.
        damage(zoo, OTHER)
        ward.children.pop("worker").kill()
        ward.start_worker("second")
        await publish(bus, chunks[100:200])
        received = await collect(bus, until(feeds, 65))
        judged = [finding for finding in received.findings if finding.model == OTHER]
        assert {(finding.score, finding.reason) for finding in judged} == {(None, "model failed")}
        assert {finding.window for finding in judged} >= set(range(30, 65))
        (alarm,) = [event for event in received.events if event.rule == "model-failed"]
        assert alarm.message.startswith(f"model failed: model '{OTHER}' refused: ")
        # Somebody takes the worker's own, and the bed is scored again.
        answer = await asking.set_model(bus, "icu-1", None, who="nurse")
        assert answer.message == f"{OWN} judges from now on"
        await publish(bus, chunks[200:])
        received = await collect(bus, until(feeds, 104))
        ours = [finding for finding in received.findings if finding.window >= 65]
        assert {finding.model for finding in ours} == {OWN}
        assert all(finding.score is not None for finding in ours)
        ended = [event for event in received.events if event.alarm == alarm.alarm]
        assert [event.presence for event in ended] == [Presence.ON, Presence.OFF]

    with_models(short_tmp, zoo, test)


def test_commands_of_a_bed_keep_their_order_while_a_model_is_loaded(short_tmp: Path) -> None:
    chunks = feed("icu-1", patient(1, "", 20.0))[:-1]

    async def test(ward: Ward, bus: Bus) -> None:
        await publish(bus, chunks)
        await collect(bus, until({"icu-1": chunks}, 23))
        now = SystemClock().now_ns()
        # Without waiting for answers: the patient who leaves takes the model along.
        asked = [
            (CommandKind.SET_MODEL, THIRD),
            (CommandKind.SET_THRESHOLD, 9.0),
            (CommandKind.DISCHARGE, None),
        ]
        for kind, value in asked:
            command = Command(
                id=kind, bed="icu-1", kind=kind, value=value, who="nurse", at=now, expires=now + 10**10
            )
            await bus.publish(topics.COMMANDS, b"icu-1", command.encode())
        answers = []
        async with asyncio.timeout(PATIENCE_S):
            async for entry in bus.tail(topics.AUDIT, after="0"):
                answers.append(Audit.decode(entry.value))
                if answers[-1].kind == "discharge":
                    break
        assert [answer.kind for answer in answers] == ["set_model", "set_threshold", "discharge"]
        assert all(answer.done for answer in answers)
        assert (await settings(bus, "icu-1")).model == OWN

    in_ward(short_tmp, test)

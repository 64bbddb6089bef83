"""Devices over a real broker, Debian's mosquitto: retained messages, a broker that goes away, absence."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bench.ports import free_port
from ingest.live.kit import SourceKit, Stretch
from ingest.live.mqtt import MqttSource
from ingest.live.source import LiveSource
from ingest.source import IngestError
from tests.conftest import NO_BROKER
from tests.ingest.live.test_tcp import PLAIN, binary, header, taken

MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
aiomqtt = pytest.importorskip("aiomqtt", reason=NO_BROKER)
publish = pytest.importorskip("paho.mqtt.publish", reason=NO_BROKER)


class Broker:
    """A broker at a port of its own, for this machine only."""

    def __init__(self, folder: Path, configuration: str = "") -> None:
        self.port, self.folder = free_port(), folder
        if configuration:
            # Not as the user that Debian has for it: that one could not read the folder.
            listener = f"user root\nlistener {self.port} 127.0.0.1\n"
            (folder / "mosquitto.conf").write_text(listener + configuration)
        self.start()

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        assert MOSQUITTO is not None
        own = self.folder / "mosquitto.conf"
        arguments = ["-c", str(own)] if own.exists() else ["-p", str(self.port)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([MOSQUITTO, *arguments], stderr=log, stdout=log)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.01)
        raise AssertionError((self.folder / "log").read_text())

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def publish(self, *messages: tuple[str, bytes | str], retain: bool = False) -> None:
        publish.multiple(
            [{"topic": t, "payload": p, "qos": 1, "retain": retain} for t, p in messages],
            hostname="127.0.0.1",
            port=self.port,
        )


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    if MOSQUITTO is None:
        pytest.skip(NO_BROKER)
    running = Broker(tmp_path_factory.mktemp("mosquitto"))
    yield running
    running.stop()


class TestMqtt(SourceKit):
    @pytest.fixture(autouse=True)
    def _broker(self, broker: Broker, request: pytest.FixtureRequest) -> None:
        # Topics of its own for each test: the broker keeps some for those who are away.
        self.broker, self.topic = broker, request.node.name

    def make(self) -> LiveSource:
        return MqttSource(broker=self.broker.url, topic=f"{self.topic}/+")

    async def send(self, source: LiveSource, stretches: Sequence[Stretch]) -> None:
        def message(number: int, stretch: Stretch) -> tuple[str, bytes]:
            # Named by its topic, or in a binary message.
            fields = header(stretch) | {"unit": "mV", "samples": stretch.millivolts.tolist()}
            del fields["bed"]
            text = json.dumps(fields).encode()
            return f"{self.topic}/{stretch.bed}", binary(stretch) if number % 2 else text

        messages = [message(number, stretch) for number, stretch in enumerate(stretches)]
        await asyncio.to_thread(self.broker.publish, *messages)

    async def send_rubbish(self, source: LiveSource) -> bool:
        await asyncio.to_thread(
            self.broker.publish, (f"{self.topic}/b", b"rubbish"), (f"{self.topic}/c", b"")
        )
        return True


def message_of(bed: str) -> tuple[str, str]:
    return f"ecg/{bed}", json.dumps(PLAIN | {"bed": bed})


def test_retained_messages_are_of_before(broker: Broker) -> None:
    async def main() -> None:
        await asyncio.to_thread(broker.publish, message_of("old"), retain=True)
        source = MqttSource(broker=broker.url, topic="ecg/#")
        await source.start()
        # Of a device that retains everything, what comes now is taken.
        await asyncio.to_thread(broker.publish, message_of("new"), retain=True)
        assert [piece.bed for piece in await taken(source, 1)] == ["new"]
        await source.stop()
        assert source.take() == []

    asyncio.run(asyncio.wait_for(main(), 60))


def test_what_comes_in_a_short_absence_is_kept_by_the_broker(broker: Broker) -> None:
    async def main() -> None:
        for _ in range(2):
            source = MqttSource(broker=broker.url, topic="away/+")
            await source.start()
            await source.stop()
            await asyncio.to_thread(broker.publish, ("away/icu-1", json.dumps(PLAIN)))
            again = MqttSource(broker=broker.url, topic="away/+")
            await again.start()
            assert len(await taken(again, 1)) == 1
            await again.stop()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_broker_that_goes_away_is_told_and_tried_again(tmp_path: Path) -> None:
    if MOSQUITTO is None:
        pytest.skip(NO_BROKER)
    own = Broker(tmp_path)

    async def main() -> None:
        source = MqttSource(broker=own.url, topic="ecg/+")
        await source.start()
        await asyncio.to_thread(own.publish, message_of("b"))
        await taken(source, 1)
        await asyncio.to_thread(own.stop)
        await asyncio.wait_for(source.arrived.wait(), 20)
        (trouble,) = source.troubles()
        assert trouble.device == f"broker 127.0.0.1:{own.port}"
        assert "trying again" in trouble.why
        await asyncio.to_thread(own.start)
        async with asyncio.timeout(20):
            pieces = []
            while not pieces:
                await asyncio.to_thread(own.publish, message_of("b"))
                await asyncio.sleep(0.05)
                pieces = source.take()
        await source.stop()

    try:
        asyncio.run(asyncio.wait_for(main(), 60))
    finally:
        own.stop()


def test_over_tls_with_a_user(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    if MOSQUITTO is None:
        pytest.skip(NO_BROKER)
    cert, key = certificate
    users, password, wrong = (tmp_path / name for name in ("users", "password", "wrong"))
    subprocess.run(
        ["mosquitto_passwd", "-b", "-c", users, "ward7", "secret"], check=True, capture_output=True
    )
    password.write_text("secret\n")
    wrong.write_text("guess\n")
    own = Broker(tmp_path, f"certfile {cert}\nkeyfile {key}\nallow_anonymous false\npassword_file {users}\n")
    url = f"mqtts://ward7@127.0.0.1:{own.port}"

    async def main() -> None:
        source = MqttSource(broker=url, topic="ecg/+", password_file=password, tls_ca=cert)
        await source.start()
        await asyncio.to_thread(
            publish.single,
            *message_of("b"),
            hostname="127.0.0.1",
            port=own.port,
            auth={"username": "ward7", "password": "secret"},
            tls={"ca_certs": str(cert)},
        )
        assert [piece.bed for piece in await taken(source, 1)] == ["b"]
        await source.stop()
        for options in ({"password_file": wrong, "tls_ca": cert}, {"password_file": password}):
            source = MqttSource(broker=url, topic="ecg/+", **options)
            await source.start()
            assert "trying again" in source.troubles()[0].why
            await source.stop()

    try:
        asyncio.run(asyncio.wait_for(main(), 60))
    finally:
        own.stop()


def test_a_broker_that_is_not_there_keeps_nobody() -> None:
    async def main() -> None:
        source = MqttSource(broker=f"mqtt://127.0.0.1:{free_port()}", topic="ecg/+")
        await source.start()
        assert "trying again" in source.troubles()[0].why
        await source.stop()

    asyncio.run(asyncio.wait_for(main(), 20))


def test_an_address_or_file_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    for url in ("http://x", "mqtt://", "x", "mqtt://user:secret@host"):
        with pytest.raises(ValueError, match="is expected") as raised:
            MqttSource(broker=url, topic="t")
        assert "secret" not in str(raised.value)
    with pytest.raises(ValueError, match="mqtts"):
        MqttSource(broker="mqtt://h", topic="t", tls_ca=tmp_path / "ca")
    with pytest.raises(IngestError, match="cannot be read"):
        MqttSource(broker="mqtt://h", topic="t", password_file=tmp_path / "none")
    with pytest.raises(IngestError, match="TLS"):
        MqttSource(broker="mqtts://h", topic="t", tls_ca=tmp_path / "none")

"""Devices that publish messages through an MQTT broker (``docs/adapters.md``)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import platform
import ssl
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from ingest.live.listening import MAX_MESSAGE
from ingest.live.messages import read_piece
from ingest.live.source import LiveSource
from ingest.source import IngestError
from stream.clock import Clock, SystemClock

if TYPE_CHECKING:
    import aiomqtt

log = logging.getLogger(__name__)

_file = click.Path(dir_okay=False, path_type=Path)

_PORTS = {"mqtt": 1883, "mqtts": 8883}

# So long a broker keeps for us what devices send with a quality of service of 1 or 2. What is older than the
# alarm for a lost feed serves the record alone.
_SESSION_S = 60

# Between attempts to connect; below the time for which an alarm is held, so that it does not come and go.
_LONGEST_PAUSE_S = 10.0
_FIRST_PAUSE_S = 0.5

# A start that waits for longer than this for the broker goes on waiting in the background.
_START_S = 5.0

# Between the socket and us, who take them at once.
_QUEUE = 10_000


class MqttSource(LiveSource):
    """Devices that publish to a broker's topics.

    Parameters
    ----------
    broker : str
        ``mqtt://`` or ``mqtts://`` (TLS), a user if one is needed, host, and port unless it is the usual one.
    topic : str
        To subscribe to; ``+`` and ``#`` as MQTT has them.
    qos : int
        Quality of service.
    password_file, tls_ca, tls_cert, tls_key : pathlib.Path, optional
    clock : Clock, optional

    Raises
    ------
    ValueError
        If the broker's address is none, or options do not go together.
    IngestError
        If a file cannot be read.
    """

    command_help = """Devices that publish to the topics of an MQTT broker (version 5).

    Messages are those of docs/adapters.md; the last level of the topic stands for a bed that is not named.
    Retained messages are of before, and left out. A broker that is away is tried again until it is back.

    \b
    bedside ingest mqtt --broker mqtt://localhost --topic 'ecg/+'
    bedside ingest mqtt --broker mqtts://ward7@broker.example --password-file password --topic 'ward7/#'
    """
    command_options = (
        click.Option(["--broker"], required=True, metavar="URL", help="mqtt[s]://[USER@]HOST[:PORT]"),
        click.Option(["--topic"], required=True, metavar="FILTER", help="As 'ecg/+' or 'ward7/#'."),
        click.Option(
            ["--qos"],
            type=click.IntRange(0, 2),
            default=1,
            show_default=True,
            help="Quality of service: 0 at most once; 1 also what came while we were away, up to a minute.",
        ),
        click.Option(["--password-file"], type=_file, metavar="FILE", help="Its first line is the password."),
        click.Option(["--tls-ca"], type=_file, metavar="FILE", help="Who signed the broker's certificate."),
        click.Option(["--tls-cert"], type=_file, metavar="FILE", help="Our own certificate."),
        click.Option(["--tls-key"], type=_file, metavar="FILE", help="Its key."),
    )

    def __init__(
        self,
        *,
        broker: str,
        topic: str,
        qos: int = 1,
        password_file: Path | None = None,
        tls_ca: Path | None = None,
        tls_cert: Path | None = None,
        tls_key: Path | None = None,
        clock: Clock | None = None,
    ) -> None:
        parts = urlsplit(broker)
        if parts.scheme not in _PORTS or not parts.hostname or parts.password:
            raise ValueError(f"--broker {parts.scheme}://…: mqtt[s]://[USER@]HOST[:PORT] is expected")
        if (tls_cert is None) != (tls_key is None):
            raise ValueError("--tls-cert and --tls-key go together")
        if parts.scheme != "mqtts" and (tls_ca or tls_cert):
            raise ValueError("--tls-ca and --tls-cert are for a broker at mqtts://")
        self._host, self._port = parts.hostname, parts.port or _PORTS[parts.scheme]
        super().__init__(f"mqtt:{self._host}:{self._port}:{topic}")
        self._user, self._topic, self._qos = parts.username, topic, qos
        self._password = None if password_file is None else _first_line(password_file)
        self._context = _context(tls_ca, tls_cert, tls_key) if parts.scheme == "mqtts" else None
        self._clock = clock or SystemClock()
        self._running: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()

    @property
    def where(self) -> str:
        return f"topic {self._topic} of the MQTT broker at {self._host}:{self._port}"

    async def start(self, position: Any = None) -> None:
        try:
            import aiomqtt  # noqa: F401
        except ImportError:
            raise IngestError(
                self.name, "MQTT needs aiomqtt: python -m pip install 'bedside[mqtt]'"
            ) from None
        self._running = asyncio.create_task(self._run())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_S):
                await self._tried.wait()

    async def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _run(self) -> None:
        import aiomqtt

        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                async with self._client() as client:
                    await self._subscribe(client)
                    log.info("subscribed to %s", self.where)
                    self._tried.set()
                    pause_s = _FIRST_PAUSE_S
                    async for message in client.messages:
                        self._take(message)
            except (aiomqtt.MqttError, OSError, ValueError) as error:
                broker = f"broker {self._host}:{self._port}"[:64]
                self.refuse(broker, f"{error}; trying again")
            self._tried.set()
            await asyncio.sleep(pause_s)
            pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)

    def _client(self) -> aiomqtt.Client:
        import aiomqtt
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = _SESSION_S
        # The broker keeps longer ones to itself.
        properties.MaximumPacketSize = MAX_MESSAGE
        # The same over restarts, and different on another machine.
        identifier = f"bedside-{platform.node()[:32]}-{zlib.crc32(self.name.encode()):08x}"
        return aiomqtt.Client(
            self._host,
            self._port,
            username=self._user,
            password=self._password,
            identifier=identifier,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=False,
            properties=properties,
            tls_context=self._context,
            max_queued_incoming_messages=_QUEUE,
        )

    async def _subscribe(self, client: aiomqtt.Client) -> None:
        from paho.mqtt.subscribeoptions import SubscribeOptions

        options = SubscribeOptions(qos=self._qos, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
        granted = await client.subscribe(self._topic, options=options)
        for code in granted:
            if getattr(code, "is_failure", False):
                raise ValueError(f"topic {self._topic}: {code}")

    def _take(self, message: aiomqtt.Message) -> None:
        topic = str(message.topic)
        sender = topic[-64:]
        if message.retain:
            return
        try:
            bed = topic.rpartition("/")[2]
            self.put(read_piece(message.payload, sender=sender, arrived_ns=self._clock.now_ns(), bed=bed))
        except IngestError as error:
            self.refuse(sender, error)


def _first_line(file: Path) -> str:
    try:
        return file.read_text().partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise IngestError(file, f"cannot be read: {error}") from error


def _context(ca: Path | None, cert: Path | None, key: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
        if cert is not None:
            context.load_cert_chain(cert, key)
    except OSError as error:
        files = " ".join(str(file) for file in (ca, cert, key) if file is not None)
        raise IngestError(files, f"cannot be used for TLS: {error.strerror or error}") from error
    return context

"""The server that monitors and gateways send HL7 v2 waveforms to."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import ssl
from collections import OrderedDict
from datetime import datetime
from typing import Any

import click

from ingest.live.hl7.message import RefusedMessageError, Segment, answer, read_messages
from ingest.live.hl7.mllp import MAX_BLOCK, Deframer, frame
from ingest.live.hl7.waveforms import BedField, Waves, read_waves, sender_of
from ingest.live.listening import MAX_CONNECTIONS, Listening, address_of, listening_options
from ingest.live.source import LiveSource, Piece
from ingest.source import IngestError
from stream.clock import Clock, SystemClock

log = logging.getLogger(__name__)

_READ_BYTES = 65_536
# From the first byte of a message to its last, and for the sender to take an answer; monitors send each
# second.
_PATIENCE_S = 30.0
# What a sender repeats because our answer was lost, it repeats within seconds: a minute of 64 beds.
_REMEMBERED = 4096
_SECOND_NS = 1_000_000_000
# Stamps are cut off at the resolution, both that of the first message and that of this one.
_CUTS = 2


class HL7Source(LiveSource):
    """Monitors and gateways that send ORU^R01 over MLLP.

    Parameters
    ----------
    bed_field : str
        Where in a message the bed stands; see `BedField`.
    trust_network : bool
        Whether other machines come in without showing a certificate.
    clock : Clock, optional
    **address
        See `ingest.live.listening.Listening.of`.

    Raises
    ------
    ValueError
        If the bed's field cannot be, or other machines would come in that are not trusted.

    Notes
    -----
    A message that is answered with AA has been taken into memory, not yet onto the stream.
    """

    command_help = """Take HL7 v2 waveforms over MLLP: ORU^R01 of IHE PCD WCM, Mindray, VitalRecorder.

    Each message is answered (AA, or AE or AR and what is wrong). Patients' names and numbers are not read.

    \b
    bedside ingest hl7
    bedside ingest hl7 --host 0.0.0.0 --trust-network --bed-field PV1-3.3
    bedside ingest hl7 --host 0.0.0.0 --tls-cert us.pem --tls-key us.key --tls-client-ca monitors.pem
    """
    command_options = (
        *listening_options(2575),
        click.Option(
            ["--bed-field"],
            default="PV1-3",
            show_default=True,
            metavar="FIELD",
            help="Where the bed stands: PV1-3 (unit, room and bed joined by -), or FIELD.COMPONENT of PV1,"
            " OBR or MSH, such as PV1-3.3.",
        ),
        click.Option(
            ["--trust-network"],
            is_flag=True,
            help="Let in other machines without certificates: whoever reaches us can feed any bed.",
        ),
    )

    def __init__(
        self,
        *,
        bed_field: str = "PV1-3",
        trust_network: bool = False,
        clock: Clock | None = None,
        **address: Any,
    ) -> None:
        self._address = Listening.of(**address)
        super().__init__(f"hl7:{self._address.port}")
        known = self._address.context is not None and self._address.context.verify_mode is ssl.CERT_REQUIRED
        if not (self._address.is_loopback or known or trust_network):
            raise ValueError(
                f"--host {self._address.host} lets in other machines, and MLLP has no passwords:"
                " --tls-client-ca, or --trust-network, is needed"
            )
        self._bed_field = BedField.parse(bed_field)
        self._clock = clock or SystemClock()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        # By bed and device: the rate, and when the next sample is due by the count of samples.
        self._due: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        if self._server is not None and self._server.sockets:
            return int(self._server.sockets[0].getsockname()[1])
        return self._address.port

    @property
    def where(self) -> str:
        return f"MLLP at {self._address.host}:{self.port}{' with TLS' if self._address.context else ''}"

    async def start(self, position: Any = None) -> None:
        address = self._address
        try:
            self._server = await asyncio.start_server(
                self._serve, address.host, address.port, ssl=address.context
            )
        except OSError as error:
            raise IngestError(self.name, f"cannot listen at {address.host}: {error.strerror}") from error

    async def stop(self) -> None:
        if self._server is None:
            return
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = address_of(writer.get_extra_info("peername"))
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            if len(self._connections) > MAX_CONNECTIONS:
                self.refuse(peer, f"more than {MAX_CONNECTIONS} connections")
                return
            await self._converse(reader, writer, peer)
        except TimeoutError:
            self.refuse(peer, f"cut off: no whole message, or no answer taken, within {_PATIENCE_S:.0f} s")
        except OSError as error:
            log.info("%s: connection lost: %s", peer, error)
        except asyncio.CancelledError:
            # Only `stop` cancels; a task that ends so would be reported as an error of the server.
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: str) -> None:
        deframer = Deframer()
        loop = asyncio.get_running_loop()
        deadline = None
        while True:
            async with asyncio.timeout_at(deadline):
                data = await reader.read(_READ_BYTES)
            if not data:
                if deframer.waiting:
                    self.refuse(peer, "the connection ended within a message")
                return
            for block in deframer.feed(data):
                deadline = None
                reply = self._taken(block, peer)
                if reply is not None:
                    writer.write(frame(reply))
                    async with asyncio.timeout(_PATIENCE_S):
                        await writer.drain()
                # A sender that has much to say leaves the others their turn.
                await asyncio.sleep(0)
            if deframer.skipped:
                # Another protocol, which waits for an answer that we do not have.
                self.refuse(peer, "cut off: bytes that are no MLLP (VT, a message, FS, CR)")
                return
            if not deframer.waiting:
                deadline = None
            elif deadline is None:
                deadline = loop.time() + _PATIENCE_S

    def _taken(self, block: bytes | None, peer: str) -> bytes | None:
        # Takes a message, or refuses it; returns the answer.
        arrived_ns = self._clock.now_ns()
        now = datetime.fromtimestamp(arrived_ns // 1000 / 1e6).astimezone()
        header: Segment | None = None
        sender, bed = peer, None
        try:
            if block is None:
                raise RefusedMessageError(207, f"a message of more than {MAX_BLOCK} bytes")
            messages = read_messages(block)
            header = messages[0][0]
            sender = _device(sender_of(header), peer)
            digest = hashlib.blake2b(block + peer.encode(), digest_size=16).digest()
            if digest not in self._seen:
                pieces: list[Piece] = []
                due: dict[tuple[str, str], tuple[float, int]] = {}
                for waves in (
                    waves for message in messages for waves in read_waves(message, self._bed_field)
                ):
                    sender, bed = _device(waves.device, peer), waves.bed
                    t_ns = self._time(waves, sender, due)
                    pieces.append(_piece(waves, sender, t_ns, arrived_ns))
                    if waves.left_out:
                        self.refuse(sender, waves.left_out, bed)
                for piece in pieces:
                    self.put(piece)
                self._remember(digest, due)
        except RefusedMessageError as error:
            self.refuse(sender, error, error.bed)
            return answer(header, error, now)
        except IngestError as error:
            self.refuse(sender, error, bed)
            why = RefusedMessageError(207, str(error))
            return answer(header, why, now)
        return answer(header, None, now)

    def _time(self, waves: Waves, device: str, due: dict[tuple[str, str], tuple[float, int]]) -> int | None:
        # Device time of the first sample. Stamps are coarser than samples, often whole seconds: what follows
        # on the samples before, as far as the stamp can tell, follows exactly.
        if waves.start is None or waves.start.resolution_ns > _SECOND_NS:
            return None
        key, t_ns = (waves.bed, device), waves.start.t_ns
        fs, expected = due.get(key) or self._due.get(key) or (0.0, 0)
        if fs == waves.fs and abs(t_ns - expected) <= _CUTS * waves.start.resolution_ns:
            t_ns = expected
        due[key] = (waves.fs, t_ns + round(len(waves.millivolts) * _SECOND_NS / waves.fs))
        return t_ns

    def _remember(self, digest: bytes, due: dict[tuple[str, str], tuple[float, int]]) -> None:
        self._seen[digest] = None
        for key, value in due.items():
            self._due[key] = value
            self._due.move_to_end(key)
        for memory in (self._seen, self._due):
            while len(memory) > _REMEMBERED:
                memory.popitem(last=False)


def _device(name: str, peer: str) -> str:
    # The address tells apart two devices that both go by their model's name; it is never cut off.
    at = f" at {peer}"
    name = "".join(c for c in name if c.isprintable())[: 64 - len(at)]
    return (name + at) if name else peer


def _piece(waves: Waves, device: str, t_ns: int | None, arrived_ns: int) -> Piece:
    return Piece.of_floats(
        waves.millivolts,
        "mV",
        bed=waves.bed,
        device=device,
        fs=waves.fs,
        leads=waves.leads,
        valid=waves.valid,
        t_ns=t_ns,
        arrived_ns=arrived_ns,
    )

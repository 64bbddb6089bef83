"""SDC devices on the network, and the ECG that they send."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from ingest.live.mdc import lead_of_code, lead_of_name, validity_of, volts_of
from ingest.live.sdc.alignment import Alignment
from ingest.live.source import LiveSource, Piece, millivolts_in
from ingest.source import IngestError
from stream.clock import Clock, SystemClock
from stream.contract import Validity
from stream.leads import LEADS
from stream.logs import say
from stream.sdc import MDC_SYSTEM, Network, keep_library_quiet, sdc_options

if TYPE_CHECKING:
    from sdc11073.certloader import SSLContextContainer
    from sdc11073.consumer.consumerimpl import SdcConsumer
    from sdc11073.mdib import ConsumerMdib
    from sdc11073.wsdiscovery import WSDiscovery
    from sdc11073.wsdiscovery.service import Service

log = logging.getLogger(__name__)

# How long to listen for answers to a probe; a device answers within half a second (WS-Discovery).
_PROBE_S = 1
# A subscription that cannot be renewed is how the end of a device is noticed: within so many seconds.
_RENEW_S = 2
# A device that cannot be connected to is tried again after so long, doubled each time up to the second
# figure; what is wrong with one is said again as often, for it goes on.
_AGAIN_S = (1.0, 10.0)
# After so long without a device, that is worth a word.
_NOTHING_S = 10.0

_VALIDITY = {
    "Vld": Validity.OK,
    "Vldated": Validity.OK,
    "Ong": Validity.QUESTIONABLE,
    "Qst": Validity.QUESTIONABLE,
    "Calib": Validity.QUESTIONABLE,
    "Oflw": Validity.SATURATED,
    "Uflw": Validity.SATURATED,
    "Inv": Validity.OFF,
    "NA": Validity.OFF,
}
# What counts where a report says several things of a lead is the last of them.
_BY_SEVERITY = (Validity.OK, Validity.QUESTIONABLE, Validity.SATURATED, Validity.OFF)
# Kinds of annotations of one device that are spoken of: one that makes them up fills neither log nor memory.
_MOST_KINDS = 64


@dataclass(slots=True)
class _Bed:
    # One medical device system with its location: its leads by the handle of their sample arrays.
    bed: str
    fs: float
    leads: tuple[str, ...]
    columns: dict[str, int]
    to_millivolts: tuple[float, ...]
    alignment: Alignment


class SDCSource(LiveSource):
    """Every SDC device on a network, or those of certain addresses (EPR).

    A bed is called by the device's associated location: point of care, room and bed, as far as they are
    given, joined by ``-``. What a device says of patients is not read.

    Parameters
    ----------
    adapter : str
        Address of this machine on the devices' network.
    device : sequence of str, optional
        EPRs of the devices to take; unless given, all.
    tls_cert, tls_key, tls_ca : str, optional
        Files with our certificate, its key, and the certificates that sign those of devices.
    clock : Clock, optional

    Raises
    ------
    ValueError
        If the address is none, or a file is not named.
    """

    command_help = """Take the ECG of ISO/IEEE 11073 SDC devices, one bed each (bedside[sdc]).

    Devices are found on the network whenever they come up; their location names the bed. Beyond this machine,
    devices want to see a certificate.

    \b
    bedside ingest sdc
    bedside ingest sdc --adapter 10.1.2.3 --tls-cert us.pem --tls-key us.key --tls-ca devices.pem
    """
    command_options = (
        *sdc_options("devices"),
        click.Option(["--device"], multiple=True, metavar="EPR", help="A device to take. [default: all]"),
    )

    def __init__(
        self,
        adapter: str = "127.0.0.1",
        device: tuple[str, ...] = (),
        tls_cert: str | None = None,
        tls_key: str | None = None,
        tls_ca: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(f"sdc:{adapter}")
        self._network = Network(adapter, tls_cert, tls_key, tls_ca)
        self._wanted = frozenset(device)
        self._clock = clock or SystemClock()
        self._discovery: WSDiscovery | None = None
        self._search: asyncio.Task[None] | None = None
        self._devices: dict[str, asyncio.Task[None]] = {}
        self._connected: set[str] = set()

    @property
    def where(self) -> str:
        return f"SDC on the network of {self._network.adapter}{' with TLS' if self._network.tls_cert else ''}"

    @property
    def connected(self) -> frozenset[str]:
        """EPRs of the devices whose samples are being taken."""
        return frozenset(self._connected)

    async def start(self, position: Any = None) -> None:
        try:
            from sdc11073.wsdiscovery import WSDiscovery
        except ImportError as error:
            raise IngestError("sdc", f"needs sdc11073: pip install 'bedside[sdc]' ({error})") from error
        keep_library_quiet()
        try:
            contexts = self._network.contexts()
        except OSError as error:
            why = f"cannot be used for TLS: {error.strerror or error}"
            raise IngestError(self._network.files, why) from error
        self._discovery = WSDiscovery(self._network.adapter)
        try:
            await asyncio.to_thread(self._discovery.start)
        except OSError as error:
            raise IngestError(self._network.adapter, f"cannot search: {error.strerror or error}") from error
        self._search = asyncio.create_task(self._searched(self._discovery, contexts))

    async def stop(self) -> None:
        tasks = [*self._devices.values(), *([self._search] if self._search else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._discovery is not None:
            await asyncio.to_thread(self._discovery.stop)
            self._discovery = None

    async def _searched(self, discovery: WSDiscovery, contexts: SSLContextContainer | None) -> None:
        tell_at = self._clock.now_ns() + round(_NOTHING_S * 1e9)
        while True:
            # Those that are gone are not remembered from one probe to the next.
            discovery.clear_remote_services()
            found = await asyncio.to_thread(discovery.search_sdc_services, timeout=_PROBE_S)
            for service in found:
                if service.epr in self._devices or (self._wanted and service.epr not in self._wanted):
                    continue
                task = asyncio.create_task(self._followed(service, contexts))
                self._devices[service.epr] = task
                task.add_done_callback(lambda _, epr=service.epr: self._devices.pop(epr, None))  # type: ignore[misc]
            if found:
                tell_at = 0
            elif tell_at and self._clock.now_ns() > tell_at:
                self.refuse("network", "no SDC device answers; waiting for one")
                tell_at = 0

    async def _followed(self, service: Service, contexts: SSLContextContainer | None) -> None:
        # Until the device has gone; the search finds it again.
        device = _Device(self, service, contexts, self._clock)
        pause = _AGAIN_S[0]
        while True:
            try:
                await asyncio.to_thread(device.connect)
                break
            except asyncio.CancelledError:
                raise
            except Exception as error:
                # The library raises what it comes across.
                why = str(error) or type(error).__name__
                self.refuse(device.name, f"is there, but cannot be connected to ({why}); trying again")
                await asyncio.to_thread(device.disconnect)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _AGAIN_S[1])
        self._connected.add(service.epr)
        try:
            while not device.gone.is_set():
                for why, bed in device.troubles:
                    self.refuse(device.name, why, bed)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(device.gone.wait(), _AGAIN_S[1])
            self.refuse(device.name, "the device has gone; waiting for it to come back")
        finally:
            self._connected.discard(service.epr)
            await asyncio.to_thread(device.disconnect)


class _Device:
    # A connected device. The library calls in threads of its own; pieces and troubles are handed to the loop.

    def __init__(
        self, source: SDCSource, service: Service, contexts: SSLContextContainer | None, clock: Clock
    ) -> None:
        self.name = f"SDC {service.epr}"[:64]
        self.gone = asyncio.Event()
        self.troubles: list[tuple[str, str | None]] = []
        self._source, self._service, self._contexts, self._clock = source, service, contexts, clock
        self._loop = asyncio.get_running_loop()
        self._consumer: SdcConsumer | None = None
        self._mdib: ConsumerMdib | None = None
        self._beds: list[_Bed] | None = None
        self._passed_over: set[str] = set()

    def connect(self) -> None:
        from sdc11073.consumer.consumerimpl import SdcConsumer
        from sdc11073.mdib import ConsumerMdib
        from sdc11073.observableproperties import strongbind
        from sdc11073.xml_types.actions import periodic_actions

        self._consumer = SdcConsumer.from_wsd_service(self._service, self._contexts)
        self._consumer.start_all(not_subscribed_actions=periodic_actions, fixed_renew_interval=_RENEW_S)
        self.name = _name(self._consumer, self._service.epr)
        self._mdib = ConsumerMdib(self._consumer)
        self._mdib.rt_buffers = _NoBuffers()
        self._mdib.init_mdib()
        # Not before: what is told while the description is read is told of none.
        strongbind(self._mdib, waveform_by_handle=self._on_waveforms)
        strongbind(self._mdib, context_by_handle=self._on_change, description_modifications=self._on_change)
        strongbind(self._mdib, sequence_or_instance_id_changed_event=self._on_end)
        strongbind(self._consumer, is_connected=self._on_connected, subscription_end_data=self._on_end)

    def disconnect(self) -> None:
        if self._consumer is not None:
            try:
                self._consumer.stop_all(unsubscribe=not self.gone.is_set())
            except Exception as error:
                log.info("%s: %s", self.name, error)
            self._consumer = None

    def _on_connected(self, connected: bool) -> None:
        if not connected:
            self._on_end(None)

    def _on_end(self, _: object) -> None:
        self._call(self.gone.set)

    def _on_change(self, _: object) -> None:
        self._beds = None

    def _on_waveforms(self, states: Mapping[str, Any] | None) -> None:
        arrived_ns = self._clock.now_ns()
        try:
            if self._beds is None:
                self.troubles = []
                self._beds = self._read_beds()
            for bed in self._beds:
                self._take(bed, states or {}, arrived_ns)
        except (IngestError, ArithmeticError, ValueError) as error:
            self._call(self._source.refuse, self.name, error)

    def _take(self, bed: _Bed, states: Mapping[str, Any], arrived_ns: int) -> None:
        for handle in bed.columns.keys() & states.keys():
            value = states[handle].MetricValue
            if value is None or not value.Samples or value.DeterminationTime is None:
                continue
            column = bed.columns[handle]
            bed.alignment.add(
                column,
                round(value.DeterminationTime * 1e9),
                np.array(value.Samples, dtype=np.float64) * bed.to_millivolts[column],
                self._validity(value, bed.bed),
            )
        while (stretch := bed.alignment.take()) is not None:
            piece = Piece.of_floats(
                stretch.millivolts,
                "mV",
                bed=bed.bed,
                device=self.name,
                fs=bed.fs,
                leads=bed.leads,
                valid=stretch.valid,
                t_ns=stretch.t_ns,
                arrived_ns=arrived_ns,
            )
            self._call(self._source.put, piece)

    def _validity(self, value: Any, bed: str) -> Validity:
        # Of the whole report, also where an annotation is of one sample: a chunk has one validity a lead.
        said = [_VALIDITY.get(value.MetricQuality.Validity.value, Validity.QUESTIONABLE)]
        for code in _annotations(value):
            validity = _validity(code)
            if validity is None:
                self._pass_over(code, bed)
            else:
                said.append(validity)
        return max(said, key=_BY_SEVERITY.index)

    def _pass_over(self, code: Any, bed: str) -> None:
        # What there is no place for in a chunk, or no meaning here, is no fault of the device: said once.
        parts = dict.fromkeys((code.Code, _words(code), "" if _is_mdc(code) else f"of {code.CodingSystem}"))
        words = "".join(c for c in " ".join(part for part in parts if part)[:80] if c.isprintable())
        if words not in self._passed_over and len(self._passed_over) < _MOST_KINDS:
            self._passed_over.add(words)
            say(
                f"{self.name}: annotation {words} says nothing of validity that is known; passed over",
                bed=bed,
            )

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            # The loop is closed: a thread of the library is the last to know.
            log.debug("%s: after the end", self.name)

    def _read_beds(self) -> list[_Bed]:
        from sdc11073.xml_types import pm_qnames

        assert self._mdib is not None
        arrays: dict[str, list[tuple[Any, str, float, float]]] = {}
        kind = pm_qnames.RealTimeSampleArrayMetricDescriptor
        waveforms = self._mdib.descriptions.NODETYPE.get(kind) or []
        for descriptor in waveforms:
            lead = _lead(descriptor.Type)
            if lead is None:
                continue
            if not descriptor.SamplePeriod:
                self._refuse(f"{lead}: no sample period")
            elif (scale := _millivolts(descriptor.Unit)) is None:
                self._refuse(f"{lead}: unknown unit {_words(descriptor.Unit)!r}; volts are needed")
            else:
                fs = round(1 / descriptor.SamplePeriod, 3)
                arrays.setdefault(self._system(descriptor), []).append((descriptor, lead, fs, scale))
        located = self._locations()
        beds = []
        for system, found in arrays.items():
            bed = located.get(system)
            if not bed:
                self._refuse("no associated location: which bed it is at is not known")
                continue
            rates = [fs for _, _, fs, _ in found]
            fs = max(dict.fromkeys(rates), key=lambda rate: (rates.count(rate), rate))
            if others := [f"{lead} at {rate:g} Hz" for _, lead, rate, _ in found if rate != fs]:
                self._refuse(f"{', '.join(others)} beside {fs:g} Hz: one rate a bed can be taken", bed)
            taken = [entry for entry in found if entry[2] == fs]
            taken.sort(key=lambda entry: LEADS.index(entry[1]) if entry[1] in LEADS else len(LEADS))
            beds.append(
                _Bed(
                    bed=bed,
                    fs=fs,
                    leads=tuple(lead for _, lead, _, _ in taken),
                    columns={descriptor.Handle: at for at, (descriptor, *_) in enumerate(taken)},
                    to_millivolts=tuple(scale for *_, scale in taken),
                    alignment=Alignment(len(taken), fs),
                )
            )
        # What has no waveforms at all is no monitor: a pump, or our own provider of alarms.
        if waveforms and not arrays:
            self._refuse("no real-time sample array that is ECG")
        return beds

    def _refuse(self, why: str, bed: str | None = None) -> None:
        self.troubles.append((why, bed))
        self._call(self._source.refuse, self.name, why, bed)

    def _locations(self) -> dict[str, str]:
        # Beds by the handle of their medical device system.
        from sdc11073.xml_types import pm_qnames

        assert self._mdib is not None
        beds = {}
        for state in self._mdib.context_states.NODETYPE.get(pm_qnames.LocationContextState) or []:
            if state.ContextAssociation is None or state.ContextAssociation.value != "Assoc":
                continue
            detail = state.LocationDetail
            if detail is not None:
                parts = (detail.PoC, detail.Room, detail.Bed)
                beds[self._system(state.descriptor_container)] = "-".join(part for part in parts if part)
        return beds

    def _system(self, descriptor: Any) -> str:
        # The medical device system that a descriptor belongs to; a gateway has one for each bed.
        assert self._mdib is not None
        while descriptor.parent_handle is not None:
            descriptor = self._mdib.descriptions.handle.get_one(descriptor.parent_handle)
        return str(descriptor.Handle)


class _NoBuffer:
    rt_data = ()

    def mk_rt_sample_containers(self, _: object) -> list[Any]:
        return []

    def add_rt_sample_containers(self, _: object) -> None:
        pass


class _NoBuffers(dict[str, _NoBuffer]):
    # In place of those that the library fills and nobody reads: it makes an object of each sample, and loses
    # all leads of a report, without a word, if one names an annotation that is not there.

    def get(self, *_: object) -> _NoBuffer:
        return _NoBuffer()

    def __missing__(self, _: str) -> _NoBuffer:
        return _NoBuffer()


def _name(consumer: SdcConsumer, epr: str) -> str:
    # What stands on the device; the EPR tells apart what has no serial number.
    host = consumer.host_description
    assert host is not None
    model = (
        next((name.text for name in host.this_model.ModelName if name.text), "") if host.this_model else ""
    )
    serial = host.this_device.SerialNumber if host.this_device else None
    words = " ".join(str(part) for part in ("SDC", model, serial or epr) if part)
    return "".join(character for character in words if character.isprintable())[:64]


def _is_mdc(code: Any) -> bool:
    return code.CodingSystem in (None, MDC_SYSTEM)


def _words(code: Any) -> str:
    if code is None:
        return ""
    described = next((text.text for text in code.ConceptDescription or []), None)
    return str(code.SymbolicCodeName or described or code.Code)


def _lead(code: Any) -> str | None:
    if code is None:
        return None
    if _is_mdc(code) and (lead := lead_of_code(code.Code)) is not None:
        return lead
    return lead_of_name(_words(code))


def _annotations(value: Any) -> list[Any]:
    # Codes of what applies to any sample: everything, unless single samples are named.
    annotations = value.Annotation
    if value.ApplyAnnotation:
        count = len(value.Samples)
        applied = {apply.AnnotationIndex for apply in value.ApplyAnnotation if apply.SampleIndex < count}
        annotations = [each for at, each in enumerate(annotations) if at in applied]
    return [each.Type for each in annotations if each.Type is not None]


def _validity(code: Any) -> Validity | None:
    validity = validity_of(code.Code) if _is_mdc(code) else None
    return validity or validity_of(code.SymbolicCodeName or "")


def _millivolts(code: Any) -> float | None:
    if code is None:
        return None
    # Another coding system's number may be the same as one of ours; a name of ours is ours.
    unit = volts_of(code.Code) if _is_mdc(code) else None
    try:
        return millivolts_in(unit or volts_of(code.SymbolicCodeName or "") or _words(code))
    except ValueError:
        return None

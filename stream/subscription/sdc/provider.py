"""The provider: follows the alarms of a deployment and shows them to whoever consumes SDC.

What is shown is a fold of the transitions that the server keeps, so that a provider that was restarted shows
what it would show had it never been away. Consumers that acknowledge are answered by the worker of the bed.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial
from typing import Any

from redis.exceptions import RedisError
from sdc11073.dispatch.request import RequestData
from sdc11073.httpserver.httpserverimpl import HttpServerThreadBase
from sdc11073.mdib import ProviderMdib
from sdc11073.provider import SdcProvider, SetService
from sdc11073.provider.operations import ExecuteParameters, ExecuteResult, get_operation_class
from sdc11073.provider.protocols.productprotocol import ProductProtocol
from sdc11073.provider.providerimpl import (
    RoleProviderComponents,
    SdcProviderComponents,
    provider_components_async_factory,
)
from sdc11073.wsdiscovery import WSDiscovery
from sdc11073.xml_types import pm_qnames, pm_types
from sdc11073.xml_types.dpws_types import ThisDeviceType, ThisModelType
from sdc11073.xml_types.msg_types import InvocationState

from stream import asking
from stream.alarms.conditions import Condition
from stream.bus import Bus, BusUnavailableError, heed_cancellation
from stream.clock import Clock, SystemClock
from stream.console import RefusalError
from stream.contract import EVERY_BED, AlarmEvent, AlarmKind, Presence, is_name
from stream.sdc import Network, keep_library_quiet, stop_provider
from stream.side_by_side import until_one_ends
from stream.subscription.follow import EVENTS_MISSED, SILENT_AFTER_S, Subscription, wanted
from stream.subscription.sdc.description import (
    ALERTS,
    MESSAGE,
    OPERATIONS,
    Part,
    acknowledge_handle,
    condition_handle,
    condition_of,
    conditions_of,
    parts_of,
    present,
    show,
    signal_handle,
    system_of,
)
from stream.topics import DEFAULT_PREFIX, VITALS

log = logging.getLogger(__name__)

MAX_BEDS = 128
"""Beds of one provider: each is a device, with four threads of the library."""

# A consumer that does not take a report within so long loses its subscription, and the others have waited.
_REPORT_S = 2
# As long as a consumer may be silent before its subscription is given up.
_SUBSCRIPTION_S = 15
# Vitals come once a second: a bed of which nothing was heard for so long is watched by nobody.
_WATCHED_NS = round(SILENT_AFTER_S * 1e9)
_LOOK_S = 1.0
_AGAIN_S = 1.0

# Who sent the request that a thread is at.
_PEER: ContextVar[Any] = ContextVar("peer")

Acknowledge = Callable[[str, str], str | None]
"""Acknowledges an alarm for somebody; returns None, or why it was not done."""

Open = dict[tuple[str, str], dict[str, AlarmEvent]]
"""The newest transition of each open alarm, by bed and rule, and then by alarm."""


def fold(open_alarms: Open, event: AlarmEvent) -> None:
    """Take a transition into account."""
    of_rule = open_alarms.setdefault((event.bed, event.rule), {})
    if event.presence is Presence.OFF:
        of_rule.pop(event.alarm, None)
    else:
        of_rule[event.alarm] = event


class AlarmProvider:
    """Provides the alarms of a deployment.

    Parameters
    ----------
    redis_url : str
        Server of the streams.
    network : Network
        Where. Consumers may acknowledge if they come from this machine, or show a certificate.
    trust_network : bool
        Let in consumers of other machines that show no certificate, too.
    prefix : str
    beds : collection of str
        Only these; empty for all.
    epr : uuid.UUID, optional
        By which consumers know the deployment again, and, made from it and the bed, each bed. By default made
        from the machine, address and prefix.
    clock : Clock, optional
    silent_after_s : float, optional
        See `stream.subscription.follow.alarms`.

    Raises
    ------
    ValueError
        If other machines would come in that are not trusted.
    """

    def __init__(
        self,
        redis_url: str,
        network: Network,
        *,
        trust_network: bool = False,
        prefix: str = DEFAULT_PREFIX,
        beds: Collection[str] = (),
        epr: uuid.UUID | None = None,
        clock: Clock | None = None,
        silent_after_s: float | None = SILENT_AFTER_S,
    ) -> None:
        self._url, self._prefix, self._network = redis_url, prefix, network
        if not (self.acknowledged or trust_network):
            raise ValueError(
                f"--adapter {network.adapter} lets in other machines:"
                " --tls-cert, --tls-key and --tls-ca, or --trust-network, are needed"
            )
        self._beds = frozenset(beds)
        self._epr = epr or uuid.uuid5(uuid.NAMESPACE_URL, f"{uuid.getnode()} {network.adapter} {prefix}")
        self._clock = clock or SystemClock()
        self._silent_after_s = silent_after_s
        # When a bed was last heard of.
        self._heard: dict[str, int] = {}
        # What changes the description and its states does so one after the other, and beside the loop:
        # consumers are told before a change is done.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sdc")

    def epr_of(self, bed: str) -> uuid.UUID:
        """Return by which consumers know a bed, or with `EVERY_BED` what is about the deployment."""
        return self._epr if bed == EVERY_BED else uuid.uuid5(self._epr, bed)

    @property
    def acknowledged(self) -> bool:
        """Whether consumers may acknowledge."""
        return self._network.is_loopback or self._network.tls_ca is not None

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Provide for ever; a server that goes away is waited for.

        Parameters
        ----------
        ready : callable
            Called once consumers can come.

        Raises
        ------
        RefusalError
            If the network cannot be used, or a file of TLS.
        stream.bus.BusUnavailableError
            If the server of the streams cannot be used at the beginning.
        """
        keep_library_quiet()
        async with await Bus.connect(self._url, prefix=self._prefix, clock=self._clock) as bus:
            subscription = await self._subscribe()
            loop = asyncio.get_running_loop()

            def acknowledge(alarm: str, who: str) -> str | None:
                # Called by a thread of the library; None: done, else why not.
                answer = asyncio.run_coroutine_threadsafe(asking.acknowledge(bus, alarm, who=who), loop)
                try:
                    audit = answer.result()
                except (asking.AskError, asking.BadRequestError, RedisError, OSError) as error:
                    return str(error)
                return None if audit.done else audit.message

            devices = _Devices(
                self._network, self.epr_of, self._clock, acknowledge if self.acknowledged else None
            )
            try:
                await self._do(devices.start, await self._kept(subscription))
                ready()
                await until_one_ends(
                    self._follow(devices, subscription), self._hear(bus), self._look(devices)
                )
            finally:
                await subscription.close()
                await self._do(devices.stop)
                self._thread.shutdown()

    async def _do(self, work: Callable[..., object], *arguments: Any) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def _subscribe(self) -> Subscription:
        return await Subscription.open(
            self._url,
            prefix=self._prefix,
            since="0-0",
            wanted=wanted(self._beds),
            silent_after_s=self._silent_after_s,
            clock=self._clock,
        )

    async def _kept(self, subscription: Subscription) -> Open:
        open_alarms: Open = {}
        async for event in subscription.rest():
            fold(open_alarms, event)
        return open_alarms

    async def _follow(self, devices: _Devices, subscription: Subscription) -> None:
        try:
            while True:
                events = await subscription.next()
                if any(event.rule == EVENTS_MISSED for event in events):
                    # Whether what is open has ended meanwhile, nobody knows: what the server has is true.
                    await subscription.close()
                    subscription = await self._subscribe_again()
                    await self._do(devices.show, await self._kept(subscription))
                    continue
                for event in events:
                    await self._do(devices.take, event)
        finally:
            await subscription.close()

    async def _subscribe_again(self) -> Subscription:
        while True:
            try:
                return await self._subscribe()
            except BusUnavailableError as error:
                heed_cancellation()
                log.warning("reading the alarms anew: %s; trying again", error)
                await asyncio.sleep(_AGAIN_S)

    async def _hear(self, bus: Bus) -> None:
        # Which beds there are, and are watched by a worker.
        positions: dict[str, str] = {}
        while True:
            try:
                # Vitals of before are those of a bed that is fed now, too.
                since = f"{(self._clock.now_ns() - _WATCHED_NS) // 1_000_000}-0"
                async for entry in bus.tail(VITALS, after=since, positions=positions):
                    bed = entry.key.decode(errors="replace")
                    if not self._beds or bed in self._beds:
                        self._heard[bed] = self._clock.now_ns()
            except (RedisError, OSError) as error:
                heed_cancellation()
                log.info("listening for beds: %s; trying again", error)
                await asyncio.sleep(_AGAIN_S)

    async def _look(self, devices: _Devices) -> None:
        while True:
            since_ns = self._clock.now_ns() - _WATCHED_NS
            self._heard = {bed: heard_ns for bed, heard_ns in self._heard.items() if heard_ns > since_ns}
            for bed in tuple(self._heard):
                # One by one: each takes a moment, and an alarm must not wait for all of them.
                await self._do(devices.add, bed)
            await self._do(devices.watch, frozenset(self._heard))
            await asyncio.sleep(_LOOK_S)


class _SetService(SetService):
    # Runs in the thread of the request, and so does what the request is for.
    def _handle_operation_request(self, request_data: RequestData, request: Any, set_response: Any) -> Any:
        _PEER.set(request_data.peer_name)
        return super()._handle_operation_request(request_data, request, set_response)


class _Operations(ProductProtocol):
    # Leaves the registry of operations to whoever asks for it.
    def __init__(self, mdib: Any, sco: Any, log_prefix: str | None = None) -> None:
        self.registry = sco

    def init_operations(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def make_operation_instance(self, operation_descriptor_container: Any, operation_cls_getter: Any) -> None:
        return None


class _Devices:
    """The SDC devices. None of its methods is called by two threads at once, but for those of requests."""

    def __init__(
        self,
        network: Network,
        epr_of: Callable[[str], uuid.UUID],
        clock: Clock,
        acknowledge: Acknowledge | None,
    ) -> None:
        self._network, self._epr_of, self._clock, self._acknowledge = network, epr_of, clock, acknowledge
        self._open: Open = {}
        self._watched: Collection[str] = frozenset()
        self._devices: dict[str, _Device] = {}
        self._discovery: Any = None
        self._server: Any = None
        self._components: Any = None
        self._contexts: Any = None

    def start(self, known: Open) -> None:
        """Come up with what is known."""
        try:
            self._contexts = self._network.contexts()
        except OSError as error:
            why = f"cannot be used for TLS: {error.strerror or error}"
            raise RefusalError(f"{self._network.files}: {why}") from error
        discovery = WSDiscovery(self._network.adapter)
        try:
            discovery.start()
        except OSError as error:
            why = f"cannot be announced: {error.strerror or error}"
            raise RefusalError(f"{self._network.adapter}: {why}") from error
        self._discovery = discovery
        of_server = self._contexts and self._contexts.server_context
        self._server = HttpServerThreadBase(self._network.adapter, of_server, ["gzip"], log)
        self._server.start()
        self._server.started_evt.wait()
        self._components = _components()
        self.add(EVERY_BED)
        self.show(known)

    def stop(self) -> None:
        """Go away, and say so."""
        # Each waits a second for its threads.
        with ThreadPoolExecutor(32) as threads:
            list(threads.map(_Device.stop, self._devices.values()))
        if self._server is not None:
            self._server.stop()
        if self._discovery is not None:
            self._discovery.stop()

    def show(self, known: Open) -> None:
        """Show what is open, and nothing else."""
        before, self._open = self._open, known
        for bed, rule in {**before, **known}:
            self._update(bed, rule)

    def take(self, event: AlarmEvent) -> None:
        """Show a transition."""
        fold(self._open, event)
        if self.add(event.bed):
            self._devices[event.bed].say(event)
        self._update(event.bed, event.rule)

    def watch(self, watched: Collection[str]) -> None:
        """Show which beds are watched by a worker."""
        self._watched = watched
        for bed, device in self._devices.items():
            device.activate(self._is_spoken_of(bed))

    def add(self, bed: str) -> bool:
        """Provide a bed, unless it is already; return whether it is provided then."""
        # The first is the deployment.
        if bed not in self._devices and len(self._devices) <= MAX_BEDS:
            self._devices[bed] = device = _Device(
                bed,
                self._epr_of(bed),
                self._clock,
                None if self._acknowledge is None or bed == EVERY_BED else partial(self._execute, bed),
            )
            device.start(self._discovery, self._server, self._components, self._contexts)
            if len(self._devices) > MAX_BEDS:
                log.warning("%d beds are provided, and no more can be", MAX_BEDS)
        return bed in self._devices

    def _is_spoken_of(self, bed: str) -> bool:
        # A bed that is not watched and has an alarm, such as that its feed was lost, is still spoken of.
        return bed == EVERY_BED or bed in self._watched or any(self._of(bed))

    def _of(self, bed: str) -> Iterator[AlarmEvent]:
        return (event for (of, _), found in self._open.items() if of == bed for event in found.values())

    def _update(self, bed: str, rule: str) -> None:
        if self.add(bed):
            alarms = self._open.get((bed, rule), {}).values()
            self._devices[bed].update(rule, alarms, tuple(self._of(bed)), self._is_spoken_of(bed))

    # -- requests, by threads of the library

    def _execute(self, bed: str, rule: str, proposed: Any) -> None:
        assert self._acknowledge is not None
        if getattr(proposed, "Presence", None) is not pm_types.AlertSignalPresence.ACK:
            raise _RefusedError("an alert signal can be set to Ack, and to nothing else")
        waiting = [
            event.alarm
            for event in tuple(self._open.get((bed, rule), {}).values())
            if event.presence is not Presence.ACKNOWLEDGED
        ]
        if not waiting:
            raise _RefusedError(f"{rule} of {bed}: there is nothing to acknowledge")
        for alarm in waiting:
            if (why := self._acknowledge(alarm, self._who())) is not None:
                raise _RefusedError(why)

    def _who(self) -> str:
        peer = _PEER.get()
        name = f"SDC {peer[0]}"
        for connection in tuple(self._server.httpd.threads):
            if connection.client_address == peer and isinstance(connection.request, ssl.SSLSocket):
                name = f"{_common_name(connection.request) or 'no name'} ({name})"
        name = "".join(character for character in name if character.isprintable())[:64]
        return name if is_name(name) else f"SDC {peer[0]}"


class _Device:
    # One bed, or the deployment.

    def __init__(
        self, bed: str, epr: uuid.UUID, clock: Clock, execute: Callable[[str, Any], None] | None
    ) -> None:
        self._epr, self._clock, self._execute = epr, clock, execute
        # Transactions of the library have no type that says what they can.
        self._mdib: Any = ProviderMdib()
        self._rules: set[str] = set()
        self._provider: Any = None
        self._describe(system_of(bed), conditions_of(bed))

    def start(self, discovery: Any, server: Any, components: Any, contexts: Any) -> None:
        self._provider = SdcProvider(
            discovery,
            ThisModelType(manufacturer="Bedside", model_name="Bedside alarms"),
            ThisDeviceType(friendly_name="Bedside alarms", serial_number=self._epr.hex[:8]),
            self._mdib,
            epr=self._epr,
            ssl_context_container=contexts,
            max_subscription_duration=_SUBSCRIPTION_S,
            socket_timeout=_REPORT_S,
            components=components,
            role_provider_components=RoleProviderComponents(role_provider_class=_Operations),
        )
        for rule in self._rules:
            self._register(rule)
        self._provider.start_all(start_rtsample_loop=False, shared_http_server=server)
        self._provider.publish()

    def stop(self) -> None:
        if self._provider is not None:
            stop_provider(self._provider)

    def say(self, event: AlarmEvent) -> None:
        with self._mdib.metric_state_transaction() as transaction:
            state = transaction.get_state(MESSAGE)
            if state.MetricValue is None:
                state.mk_metric_value()
            state.MetricValue.Value = f"{event.rule} {event.presence}: {event.message}"
            state.MetricValue.MetricQuality.Validity = pm_types.MeasurementValidity.VALID

    def update(
        self, rule: str, alarms: Collection[AlarmEvent], of_bed: Collection[AlarmEvent], is_on: bool
    ) -> None:
        # The alarms of the rule, and all of the bed.
        if rule not in self._rules:
            if not alarms:
                return
            self._add(condition_of(next(iter(alarms))))
        with self._mdib.alert_state_transaction(set_determination_time=False) as transaction:
            condition = transaction.get_state(condition_handle(rule))
            was = condition.Presence
            show(condition, transaction.get_state(signal_handle(rule)), alarms)
            if condition.Presence is not was:
                condition.DeterminationTime = self._clock.now_ns() / 1e9
            system = transaction.get_state(ALERTS)
            system.ActivationState = _ACTIVATIONS[is_on]
            system.PresentPhysiologicalAlarmConditions = present(of_bed, AlarmKind.PHYSIOLOGICAL)
            system.PresentTechnicalAlarmConditions = present(of_bed, AlarmKind.TECHNICAL)

    def activate(self, is_on: bool) -> None:
        state = self._mdib.states.descriptor_handle.get_one(ALERTS)
        if state.ActivationState is not _ACTIVATIONS[is_on]:
            with self._mdib.alert_state_transaction() as transaction:
                transaction.get_state(ALERTS).ActivationState = _ACTIVATIONS[is_on]

    def _add(self, condition: Condition) -> None:
        self._describe((), [condition])
        self._register(condition.rule)

    def _describe(self, parts: Iterable[Part], more: Iterable[Condition]) -> None:
        with self._mdib.descriptor_transaction() as transaction:
            for part in parts:
                transaction.add_descriptor(part.descriptor, state_container=part.state)
            for condition in more:
                self._rules.add(condition.rule)
                for part in parts_of(condition, acknowledged=self._execute is not None):
                    transaction.add_descriptor(part.descriptor, state_container=part.state)

    def _register(self, rule: str) -> None:
        if self._execute is None:
            return
        obey = self._execute

        def execute(asked: ExecuteParameters) -> ExecuteResult:
            obey(rule, asked.operation_request.argument)
            return ExecuteResult(InvocationState.FINISHED, self._mdib.mdib_version_group, signal_handle(rule))

        kind = get_operation_class(pm_qnames.SetAlertStateOperationDescriptor)
        # Not delayed: who asks is told what came of it.
        operation = kind(acknowledge_handle(rule), signal_handle(rule), execute, delayed_processing=False)
        self._provider.product_lookup[OPERATIONS].registry.register_operation(operation)


_ACTIVATIONS = {True: pm_types.AlertActivation.ON, False: pm_types.AlertActivation.OFF}


class _RefusedError(Exception):
    """A request of a consumer that is not obeyed."""


def _components() -> SdcProviderComponents:
    # What reads and writes messages compiles the schemas: once, and not for each bed.
    components = provider_components_async_factory()
    components.hosted_services["Set"] = [_SetService]
    components.msg_reader_class = _made_once(components.msg_reader_class)
    components.msg_factory_class = _made_once(components.msg_factory_class)
    return components


def _made_once(kind: Callable[..., Any]) -> Any:
    made: list[Any] = []

    def make(*arguments: Any, **options: Any) -> Any:
        if not made:
            made.append(kind(*arguments, **options))
        return made[0]

    return make


def _common_name(connection: ssl.SSLSocket) -> str:
    # Of the certificate that our certificate authority has signed.
    subject: Any = (connection.getpeercert() or {}).get("subject", ())
    return next((value for row in subject for key, value in row if key == "commonName"), "")

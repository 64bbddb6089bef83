"""A consumer of an independent implementation: sdc11073's own."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sdc11073.certloader import mk_ssl_contexts
from sdc11073.consumer.consumerimpl import SdcConsumer
from sdc11073.mdib import ConsumerMdib
from sdc11073.observableproperties import strongbind
from sdc11073.wsdiscovery import WSDiscovery
from sdc11073.wsdiscovery.service import Service
from sdc11073.xml_types import pm_qnames
from sdc11073.xml_types.actions import periodic_actions
from sdc11073.xml_types.pm_types import AlertActivation, AlertSignalPresence, ContextAssociation


class Consumer:
    """Connected to a provider; what it knows changes while its tests wait."""

    def __init__(self, consumer: SdcConsumer, mdib: ConsumerMdib) -> None:
        self._consumer, self._mdib = consumer, mdib
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self.presences: list[tuple[str, str]] = []
        """Each state of an alert signal that was reported: its handle, and presence."""
        self.ended = asyncio.Event()
        strongbind(mdib, alert_by_handle=self._on_alerts)
        strongbind(mdib, metrics_by_handle=self._on_change, new_descriptors_by_handle=self._on_change)
        strongbind(consumer, is_connected=self._on_connected, subscription_end_data=self._on_end)

    def _on_alerts(self, states: dict[str, Any]) -> None:
        signals = [(handle, s.Presence.value) for handle, s in states.items() if handle.endswith("/signal")]
        self._loop.call_soon_threadsafe(self.presences.extend, signals)
        self._on_change(None)

    def _on_change(self, _: object) -> None:
        self._loop.call_soon_threadsafe(self._changed.set)

    def _on_connected(self, connected: bool) -> None:
        if not connected:
            self._on_end(None)

    def _on_end(self, _: object) -> None:
        self._loop.call_soon_threadsafe(self.ended.set)

    def descriptor(self, handle: str) -> Any:
        return self._mdib.descriptions.handle.get_one(handle)

    def state(self, handle: str) -> Any:
        return self._mdib.states.descriptor_handle.get_one(handle, allow_none=True)

    def signal(self, rule: str) -> str | None:
        """Return the presence of a condition's signal; None if there is no such."""
        state = self.state(f"alerts/{rule}/signal")
        return None if state is None else str(state.Presence.value)

    def is_watched(self) -> bool:
        return bool(self.state("alerts").ActivationState == AlertActivation.ON)

    def message(self) -> str | None:
        value = self.state("message").MetricValue
        return None if value is None else str(value.Value)

    def beds(self) -> list[str]:
        """Return the beds of the associated locations."""
        found = self._mdib.context_states.NODETYPE.get(pm_qnames.LocationContextState) or []
        return [s.LocationDetail.Bed for s in found if s.ContextAssociation == ContextAssociation.ASSOCIATED]

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not done():
                self._changed.clear()
                await self._changed.wait()

    async def acknowledge(self, rule: str, presence: Any = AlertSignalPresence.ACK) -> Any:
        """Acknowledge an alarm, and return how the invocation ended."""
        handle = f"alerts/{rule}"
        proposed = self.state(f"{handle}/signal").mk_copy()
        proposed.Presence = presence

        def ask() -> Any:
            client = self._consumer.set_service_client
            return client.set_alert_state(f"{handle}/acknowledge", proposed).result(timeout=20)

        return (await asyncio.to_thread(ask)).InvocationInfo


def found(epr: uuid.UUID, seconds: float = 1) -> list[Service]:
    """Return the providers of an EPR that answer within some time: one, or none."""
    discovery = WSDiscovery("127.0.0.1")
    discovery.start()
    try:
        return [s for s in discovery.search_sdc_services(timeout=seconds) if s.epr == epr.urn]
    finally:
        discovery.stop()


@asynccontextmanager
async def consuming(epr: uuid.UUID, tls: tuple[Path, Path, Path] | None = None) -> AsyncIterator[Consumer]:
    """Find a provider and connect to it; `tls` are files of key, certificate and the other's certificates."""
    contexts = mk_ssl_contexts(*tls) if tls else None

    def connect() -> tuple[SdcConsumer, ConsumerMdib]:
        while not (services := found(epr)):
            pass
        consumer = SdcConsumer.from_wsd_service(services[0], contexts)
        consumer.start_all(not_subscribed_actions=periodic_actions, fixed_renew_interval=1)
        mdib = ConsumerMdib(consumer)
        mdib.init_mdib()
        return consumer, mdib

    async with asyncio.timeout(30):
        consumer, mdib = await asyncio.to_thread(connect)
    connected = Consumer(consumer, mdib)
    try:
        yield connected
    finally:
        await asyncio.to_thread(consumer.stop_all, not connected.ended.is_set())

"""SDC devices that send ECG, for measuring the adapter: one for each bed, of sdc11073."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
from sdc11073.location import SdcLocation
from sdc11073.mdib import ProviderMdib
from sdc11073.provider import SdcProvider
from sdc11073.wsdiscovery import WSDiscovery
from sdc11073.xml_types.dpws_types import ThisDeviceType, ThisModelType
from sdc11073.xml_types.pm_types import MeasurementValidity

from stream.sdc import keep_library_quiet, stop_provider

MDIB = """<?xml version="1.0" encoding="UTF-8"?>
<msg:GetMdibResponse xmlns:msg="http://standards.ieee.org/downloads/11073/11073-10207-2017/message"
 xmlns:pm="http://standards.ieee.org/downloads/11073/11073-10207-2017/participant"
 xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" SequenceId="urn:uuid:{sequence}">
<msg:Mdib SequenceId="urn:uuid:{sequence}"><pm:MdDescription><pm:Mds Handle="mds">
<pm:SystemContext Handle="sc"><pm:LocationContext Handle="lc"/></pm:SystemContext>
<pm:Vmd Handle="vmd"><pm:Channel Handle="ch">{arrays}</pm:Channel></pm:Vmd>
</pm:Mds></pm:MdDescription></msg:Mdib></msg:GetMdibResponse>"""
# The unit is MDC_DIM_MICRO_VOLT.
_ARRAY = """<pm:Metric Handle="{lead}" xsi:type="pm:RealTimeSampleArrayMetricDescriptor"
 MetricCategory="Msrmt" MetricAvailability="Cont" Resolution="1" SamplePeriod="PT{period}S">
<pm:Type Code="0" SymbolicCodeName="MDC_ECG_ELEC_POTL_{name}"/><pm:Unit Code="266419"/></pm:Metric>"""
# To find the devices, subscribe and read what they are.
_SETTLING_S = 5.0


class _Device:
    # Its methods are called by one thread at a time.

    def __init__(self, bed: str, epr: uuid.UUID, leads: Sequence[str], fs: float) -> None:
        keep_library_quiet()
        arrays = "".join(_ARRAY.format(lead=lead, name=lead.upper(), period=f"{1 / fs:g}") for lead in leads)
        text = MDIB.format(sequence=uuid.uuid4(), arrays=arrays)
        self._mdib: Any = ProviderMdib.from_string(text.encode())
        self._leads = leads
        self._discovery = WSDiscovery("127.0.0.1")
        self._discovery.start()
        self._provider = SdcProvider(
            self._discovery,
            ThisModelType(manufacturer="Bedside", model_name="Benchmark"),
            ThisDeviceType(friendly_name=bed, serial_number=bed),
            self._mdib,
            epr=epr,
        )
        self._provider.start_all(start_rtsample_loop=False)
        self._provider.set_location(SdcLocation(bed=bed))

    def report(self, t_ns: int, samples: np.ndarray[Any, Any]) -> None:
        with self._mdib.rt_sample_state_transaction() as transaction:
            for lead, column in zip(self._leads, samples.T, strict=True):
                state = transaction.get_state(lead)
                value = state.MetricValue or state.mk_metric_value()
                value.Samples = [Decimal(number) for number in column.tolist()]
                value.DeterminationTime = t_ns / 1e9
                value.MetricQuality.Validity = MeasurementValidity.VALID

    def stop(self) -> None:
        stop_provider(self._provider)
        self._discovery.stop()


@contextlib.asynccontextmanager
async def device(bed: str, epr: uuid.UUID, leads: Sequence[str], fs: float) -> AsyncIterator[Any]:
    """Be a device; gives what reports samples, shape (n, leads) in uV, of a time.

    Parameters
    ----------
    bed : str
    epr : uuid.UUID
    leads : sequence of str
    fs : float
        Hz.
    """
    made = await asyncio.to_thread(_Device, bed, epr, leads, fs)
    try:
        await asyncio.sleep(_SETTLING_S)

        async def report(t_ns: int, samples: np.ndarray[Any, Any]) -> None:
            await asyncio.to_thread(made.report, t_ns, samples)

        yield report
    finally:
        await asyncio.to_thread(made.stop)

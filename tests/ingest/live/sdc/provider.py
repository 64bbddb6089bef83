"""A device of sdc11073, in a process of its own.

Lead II counts microvolts from 0 on, lead V1 is its negative in millivolts and questionable; 250 Hz, ten
reports a second. Standard output says when the first sample was taken, ns since the epoch.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

MDIB = """<?xml version="1.0" encoding="UTF-8"?>
<msg:GetMdibResponse xmlns:msg="http://standards.ieee.org/downloads/11073/11073-10207-2017/message"
 xmlns:pm="http://standards.ieee.org/downloads/11073/11073-10207-2017/participant"
 xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" SequenceId="urn:uuid:{sequence}">
<msg:Mdib SequenceId="urn:uuid:{sequence}"><pm:MdDescription><pm:Mds Handle="mds">
<pm:SystemContext Handle="sc"><pm:LocationContext Handle="lc"/></pm:SystemContext>
<pm:Vmd Handle="vmd"><pm:Channel Handle="ch">{arrays}</pm:Channel></pm:Vmd>
</pm:Mds></pm:MdDescription></msg:Mdib></msg:GetMdibResponse>"""
ARRAY = """<pm:Metric Handle="{handle}" xsi:type="pm:RealTimeSampleArrayMetricDescriptor"
 MetricCategory="Msrmt" MetricAvailability="Cont" Resolution="0.001" SamplePeriod="PT0.004S">
<pm:Type Code="{code}"/><pm:Unit Code="{unit}"/></pm:Metric>"""
SAMPLES = 25


@dataclass(frozen=True, slots=True)
class Device:
    begin_ns: int
    stdin: IO[str]

    def move(self, bed: str) -> None:
        self.stdin.write(f"{bed}\n")
        self.stdin.flush()


@contextmanager
def providing(**fields: Any) -> Iterator[Device]:
    """Run a device.

    Parameters
    ----------
    number : int
        Of the device: its EPR ends with it.
    bed : str, optional
    unit : str
        Code of lead II's.
    tls : list of str, optional
        Files of certificate, key, and the other's certificates.
    """
    command = [sys.executable, "-m", "tests.ingest.live.sdc.provider", json.dumps(fields)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            yield Device(int(process.stdout.readline()), process.stdin)
        finally:
            process.kill()


def provide(
    number: int,
    bed: str | None = "7",
    unit: str = "266419",
    tls: list[str] | None = None,
) -> None:
    from sdc11073.certloader import mk_ssl_contexts
    from sdc11073.location import SdcLocation
    from sdc11073.mdib import ProviderMdib
    from sdc11073.provider import SdcProvider
    from sdc11073.wsdiscovery import WSDiscovery
    from sdc11073.xml_types.dpws_types import ThisDeviceType, ThisModelType
    from sdc11073.xml_types.pm_types import MeasurementValidity

    arrays = {"ii": (131330, unit), "v1": (131331, "266418"), "pleth": (150452, "262688")}
    text = "".join(ARRAY.format(handle=handle, code=code, unit=of) for handle, (code, of) in arrays.items())
    mdib = ProviderMdib.from_string(MDIB.format(sequence=uuid.uuid4(), arrays=text).encode())
    contexts = mk_ssl_contexts(Path(tls[1]), Path(tls[0]), Path(tls[2])) if tls else None
    with WSDiscovery("127.0.0.1") as discovery:
        provider = SdcProvider(
            discovery,
            ThisModelType(manufacturer="Acme", model_name="Bedside 1"),
            ThisDeviceType(friendly_name="Acme", serial_number=f"SN-{number}"),
            mdib,
            epr=uuid.UUID(int=number),
            ssl_context_container=contexts,
        )
        provider.start_all(start_rtsample_loop=False)
        if bed is None:
            provider.publish()
        else:
            provider.set_location(SdcLocation(fac="HOSP", poc="ICU", bed=bed))
        begin = time.time()
        print(round(begin * 1e9), flush=True)  # noqa: T201
        at = 0
        while True:
            time.sleep(max(0, begin + (at + SAMPLES) / 250 - time.time()))
            with mdib.rt_sample_state_transaction() as transaction:
                for handle, scale in (("ii", Decimal(1)), ("v1", Decimal("-0.001")), ("pleth", Decimal(1))):
                    state = transaction.get_state(handle)
                    value = state.MetricValue or state.mk_metric_value()
                    value.Samples = [n * scale for n in range(at, at + SAMPLES)]
                    value.DeterminationTime = begin + at / 250
                    questionable = handle == "v1"
                    value.MetricQuality.Validity = (
                        MeasurementValidity.QUESTIONABLE if questionable else MeasurementValidity.VALID
                    )
            at += SAMPLES
            if select.select([sys.stdin], [], [], 0)[0] and (bed := sys.stdin.readline().strip()):
                provider.set_location(SdcLocation(fac="HOSP", poc="ICU", bed=bed))


if __name__ == "__main__":
    provide(**json.loads(sys.argv[1]))

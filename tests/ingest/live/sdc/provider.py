"""Devices of sdc11073, in this process or one of their own.

In one of its own, lead II counts microvolts from 0 on, lead V1 is its negative in millivolts and
questionable; 250 Hz, ten reports a second. Standard output says when the first sample was taken, ns since
the epoch.
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

from sdc11073.certloader import mk_ssl_contexts
from sdc11073.location import SdcLocation
from sdc11073.mdib import ProviderMdib
from sdc11073.provider import SdcProvider
from sdc11073.wsdiscovery import WSDiscovery
from sdc11073.xml_types.dpws_types import ThisDeviceType, ThisModelType
from sdc11073.xml_types.pm_types import Annotation, ApplyAnnotation, CodedValue, MeasurementValidity

from bench.sdc_device import MDIB
from stream.sdc import stop_provider

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
    """Run a device in a process of its own; see `provide`."""
    command = [sys.executable, "-m", "tests.ingest.live.sdc.provider", json.dumps(fields)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            yield Device(int(process.stdout.readline()), process.stdin)
        finally:
            process.kill()


class Monitor:
    """A device in this process.

    Parameters
    ----------
    number : int
        Its EPR ends with it.
    arrays : dict of str to (str, str)
        Codes of what is measured and of its unit, by handle.
    bed : str, optional
    tls : list of str, optional
        Files of certificate, key, and the other's certificates.
    """

    def __init__(
        self,
        number: int,
        arrays: dict[str, tuple[str, str]],
        *,
        bed: str | None = "7",
        tls: list[str] | None = None,
    ) -> None:
        text = "".join(
            ARRAY.format(handle=handle, code=of, unit=unit) for handle, (of, unit) in arrays.items()
        )
        self.mdib = ProviderMdib.from_string(MDIB.format(sequence=uuid.uuid4(), arrays=text).encode())
        self.discovery = WSDiscovery("127.0.0.1")
        self.discovery.start()
        self.provider = SdcProvider(
            self.discovery,
            ThisModelType(manufacturer="Acme", model_name="Bedside 1"),
            ThisDeviceType(friendly_name="Acme", serial_number=f"SN-{number}"),
            self.mdib,
            epr=uuid.UUID(int=number),
            ssl_context_container=mk_ssl_contexts(Path(tls[1]), Path(tls[0]), Path(tls[2])) if tls else None,
        )
        self.provider.start_all(start_rtsample_loop=False)
        if bed is None:
            self.provider.publish()
        else:
            self.move(bed)

    def move(self, bed: str) -> None:
        self.provider.set_location(SdcLocation(fac="HOSP", poc="ICU", bed=bed))

    def remove(self, handle: str) -> None:
        """Take an array out of the description."""
        with self.mdib.descriptor_transaction() as transaction:
            transaction.remove_descriptor(handle)

    def add(self, handle: str, like: str, code: str) -> None:
        """Put an array into the description, as another one, of something else."""
        descriptor = self.mdib.descriptions.handle.get_one(like).mk_copy()
        descriptor.Handle, descriptor.Type = handle, CodedValue(code)
        state = self.mdib.data_model.mk_state_container(descriptor)
        with self.mdib.descriptor_transaction() as transaction:
            transaction.add_descriptor(descriptor, state_container=state)

    def send(
        self,
        begin: float,
        samples: dict[str, list[Decimal]],
        questionable: str = "",
        annotations: dict[str, tuple[list[CodedValue], list[tuple[int, int]]]] | None = None,
    ) -> None:
        """Report samples of arrays.

        Parameters
        ----------
        begin : float
            When they were taken, s since the epoch.
        samples : dict of str to list of Decimal
            By handle.
        questionable : str, optional
            The array of which that is said.
        annotations : dict of str to tuple of (list of CodedValue, list of (int, int)), optional
            By handle, what is said of an array, and which of it applies to which samples.
        """
        with self.mdib.rt_sample_state_transaction() as transaction:
            for handle, values in samples.items():
                state = transaction.get_state(handle)
                value = state.MetricValue or state.mk_metric_value()
                value.Samples = values
                value.DeterminationTime = begin
                value.MetricQuality.Validity = (
                    MeasurementValidity.QUESTIONABLE if handle == questionable else MeasurementValidity.VALID
                )
                codes, applied = (annotations or {}).get(handle, ([], []))
                value.Annotation = [Annotation(code) for code in codes]
                value.ApplyAnnotation = [ApplyAnnotation(*places) for places in applied]

    def stop(self) -> None:
        stop_provider(self.provider, tell=False)
        self.discovery.stop()


def provide(number: int, unit: str = "266419", **fields: Any) -> None:
    arrays = {"ii": ("131330", unit), "v1": ("131331", "266418"), "pleth": ("150452", "262688")}
    monitor = Monitor(number, arrays, **fields)
    begin, at = time.time(), 0
    print(round(begin * 1e9), flush=True)  # noqa: T201
    while True:
        time.sleep(max(0, begin + (at + SAMPLES) / 250 - time.time()))
        counts = range(at, at + SAMPLES)
        samples = {
            "ii": [Decimal(n) for n in counts],
            "v1": [Decimal(-n) / 1000 for n in counts],
            "pleth": [Decimal(n) for n in counts],
        }
        monitor.send(begin + at / 250, samples, questionable="v1")
        at += SAMPLES
        if select.select([sys.stdin], [], [], 0)[0] and (bed := sys.stdin.readline().strip()):
            monitor.move(bed)


if __name__ == "__main__":
    provide(**json.loads(sys.argv[1]))

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from stream.contract import INVALID
from stream.leads import LEADS
from tests.training.conftest import FS
from tests.training.preprocess.conftest import made_up
from training.preprocess.catalogue import Reason
from training.preprocess.screening import FLAT_S, MIN_S, RAIL_MV, SATURATED_S, fault

GAIN = [1000.0] * len(LEADS)
V2 = LEADS.index("V2")


def raw(seconds: float = 10.0) -> npt.NDArray[np.int16]:
    return np.rint(made_up(0, seconds=seconds) * 1000).astype(np.int16)


def test_an_ordinary_recording_is_fit() -> None:
    assert fault(raw(), GAIN, FS) is None


def test_a_recording_shorter_than_a_window_is_too_short() -> None:
    assert fault(raw(MIN_S), GAIN, FS) is None
    assert fault(raw(MIN_S)[:-1], GAIN, FS) == (Reason.TOO_SHORT, "7.998 s of 8 s")


def test_one_missing_sample_is_enough() -> None:
    samples = raw()
    samples[17, V2] = INVALID
    assert fault(samples, GAIN, FS) == (Reason.NAN, "0.002 s in V2")


@pytest.mark.parametrize("value", [0, 300, -4900])
def test_a_lead_that_never_moves_is_flat(value: int) -> None:
    samples = raw()
    samples[:, V2] = value
    assert fault(samples, GAIN, FS) == (Reason.FLAT, "V2")


def test_a_lead_with_a_tremor_of_microvolts_is_flat() -> None:
    samples = raw()
    samples[:, V2] = np.random.default_rng(0).integers(-5, 6, len(samples))
    assert fault(samples, GAIN, FS) == (Reason.FLAT, "V2")


@pytest.mark.parametrize(("seconds", "found"), [(FLAT_S, (Reason.FLAT, "V2")), (FLAT_S - 0.01, None)])
def test_a_lead_that_was_off_for_a_while_is_flat(seconds: float, found: tuple[Reason, str] | None) -> None:
    samples = raw()
    at = 1000
    samples[at : at + round(seconds * FS), V2] = 1234
    assert fault(samples, GAIN, FS) == found


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("millivolts", "seconds", "saturated"),
    [
        (RAIL_MV, SATURATED_S, True),
        (RAIL_MV, SATURATED_S - 0.01, False),
        # The flat top of a wide wave is no rail.
        (RAIL_MV - 0.1, 0.3, False),
    ],
)
def test_a_lead_that_stays_at_its_extreme_is_saturated(
    sign: int, millivolts: float, seconds: float, saturated: bool
) -> None:
    samples = raw()
    samples[2000 : 2000 + round(seconds * FS), V2] = round(sign * millivolts * 1000)
    assert fault(samples, GAIN, FS) == ((Reason.SATURATED, "V2") if saturated else None)


def test_a_lead_at_the_limit_of_its_format_is_saturated_at_any_gain() -> None:
    samples = raw()
    gain = [1000.0] * len(LEADS)
    gain[V2] = 20_000.0  # 32767 LSB are 1.6 mV
    samples[2000:2100, V2] = 32767
    assert fault(samples, gain, FS) == (Reason.SATURATED, "V2")


def test_a_lead_that_never_leaves_its_limit_is_saturated() -> None:
    samples = raw()
    samples[:, V2] = -32767
    assert fault(samples, GAIN, FS) == (Reason.SATURATED, "V2")


def test_all_leads_that_fail_are_named() -> None:
    samples = raw()
    samples[:, [0, 5]] = 0
    assert fault(samples, GAIN, FS) == (Reason.FLAT, "I aVF")

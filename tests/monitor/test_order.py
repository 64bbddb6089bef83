from __future__ import annotations

from monitor.live.ward import Ward
from monitor.order import Order
from stream.contract import Presence, Priority
from tests.monitor.messages import S, alarm
from tests.monitor.test_summary import NOW, ward_of

HOLD = 10 * S


def names(order: Order, ward: Ward, now_ns: int = NOW) -> list[str]:
    return [bed.name for bed in order.sorted(ward, now_ns)]


def test_alarmed_beds_come_first_then_unscored_ones_then_the_rest_by_name() -> None:
    ward = ward_of("bed-10", "bed-2", "bed-3", "bed-4", "bed-5")
    other = ward_of("bed-6", scored=False)
    ward.beds["bed-6"] = other.beds["bed-6"]
    ward.take_alarm(alarm("a", bed="bed-3"))
    ward.take_alarm(alarm("b", bed="bed-5", priority=Priority.HIGH))
    ward.take_alarm(alarm("c", bed="bed-4", presence=Presence.ACKNOWLEDGED))
    assert names(Order(), ward) == ["bed-5", "bed-3", "bed-4", "bed-6", "bed-2", "bed-10"]


def test_a_bed_moves_up_at_once_and_down_when_it_has_calmed() -> None:
    ward, order = ward_of("bed-1", "bed-2", "bed-3"), Order()
    assert names(order, ward) == ["bed-1", "bed-2", "bed-3"]
    ward.take_alarm(alarm(bed="bed-3"))
    assert names(order, ward) == ["bed-3", "bed-1", "bed-2"]
    ward.take_alarm(alarm(number=1, bed="bed-3", presence=Presence.OFF))
    assert names(order, ward) == ["bed-3", "bed-1", "bed-2"]
    assert names(order, ward, NOW + HOLD - 1)[0] == "bed-3"
    assert names(order, ward, NOW + HOLD) == ["bed-1", "bed-2", "bed-3"]


def test_an_alarm_that_comes_and_goes_moves_its_bed_once() -> None:
    ward, order = ward_of("bed-1", "bed-2"), Order()
    names(order, ward)
    for turn in range(20):
        now = NOW + turn * HOLD // 2
        ward.take_alarm(alarm(number=2 * turn, bed="bed-2"))
        assert names(order, ward, now)[0] == "bed-2"
        ward.take_alarm(alarm(number=2 * turn + 1, bed="bed-2", presence=Presence.OFF))
        assert names(order, ward, now + 1)[0] == "bed-2"


def test_what_changes_within_a_rank_moves_nothing() -> None:
    ward, order = ward_of("bed-1", "bed-2", "bed-3"), Order()
    ward.take_alarm(alarm("late", bed="bed-1"))
    ward.take_alarm(alarm("early", bed="bed-3"))
    before = names(order, ward)
    ward.take_alarm(alarm("more", bed="bed-3", priority=Priority.LOW))
    ward.take_alarm(alarm("early", 1, bed="bed-3", presence=Presence.LATCHED))
    assert names(order, ward) == before == ["bed-1", "bed-3", "bed-2"]


def test_a_bed_that_is_gone_leaves_no_trace() -> None:
    ward, order = ward_of("bed-1", "bed-2"), Order()
    ward.take_alarm(alarm(bed="bed-2"))
    names(order, ward)
    gone = ward.beds.pop("bed-2")
    assert names(order, ward) == ["bed-1"]
    gone.alarms.clear()
    ward.beds["bed-2"] = gone
    assert names(order, ward) == ["bed-1", "bed-2"]

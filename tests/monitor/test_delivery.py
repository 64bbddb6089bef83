from __future__ import annotations

from monitor.delivery import Delivery
from tests.monitor.messages import S


def test_a_browser_that_takes_what_it_is_sent_is_not_behind() -> None:
    delivery = Delivery()
    for number in range(10):
        delivery.send(number, number * S)
        assert not delivery.is_behind(number * S)
        delivery.take(number - 1)
    assert not delivery.is_behind(11 * S)
    assert delivery.is_behind(12 * S)


def test_one_that_has_fallen_behind_gets_nothing_until_it_has_taken_everything() -> None:
    delivery = Delivery()
    for number in range(3):
        delivery.send(number, number * S)
    assert delivery.is_behind(3 * S)
    # The rest is not two seconds old, but more would be put behind it.
    delivery.take(1)
    assert delivery.is_behind(3 * S)
    delivery.take(2)
    assert not delivery.is_behind(3 * S)

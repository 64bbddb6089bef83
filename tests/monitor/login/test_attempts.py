from __future__ import annotations

from monitor.login.attempts import Attempts
from stream.clock import ManualClock
from tests.monitor.messages import T0, S

ADDRESS = "192.0.2.7"


def test_five_are_free_and_then_each_waits_longer() -> None:
    clock = ManualClock(T0)
    attempts = Attempts(clock)
    waits = []
    for _ in range(14):
        wait_s = attempts.wait_s("anna", ADDRESS)
        waits.append(wait_s)
        clock.set(clock.now_ns() + wait_s * S)
        assert attempts.wait_s("anna", ADDRESS) == 0
        attempts.begin("anna", ADDRESS)
    assert waits == [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    # From elsewhere it is no quicker; somebody else does not wait.
    assert attempts.wait_s("anna", "198.51.100.1") == 60
    assert attempts.wait_s("bert", ADDRESS) == 0
    clock.set(clock.now_ns() + 16 * 60 * S)
    attempts.begin("anna", ADDRESS)
    assert attempts.wait_s("anna", ADDRESS) == 0, "after a quarter of an hour it is forgotten"


def test_many_names_from_one_address_wait_too_and_from_one_network() -> None:
    attempts = Attempts(ManualClock(T0))
    for number in range(20):
        attempts.begin(f"user-{number}", ADDRESS)
        attempts.begin(f"other-{number}", f"2001:db8::{number:x}")
    assert attempts.wait_s("anna", ADDRESS) == 1
    assert attempts.wait_s("anna", f"::ffff:{ADDRESS}") == 1
    assert attempts.wait_s("anna", "2001:db8::ffff:1") == 1
    assert attempts.wait_s("anna", "2001:db8:1::1") == 0


def test_who_signs_in_starts_anew_but_does_not_clear_the_address() -> None:
    attempts = Attempts(ManualClock(T0))
    for _ in range(19):
        attempts.begin("anna", ADDRESS)
    attempts.begin("bert", ADDRESS)
    attempts.succeed("bert", ADDRESS)
    assert attempts.wait_s("bert", ADDRESS) == 0
    assert attempts.wait_s("anna", "198.51.100.1") > 0
    attempts.begin("carl", ADDRESS)
    assert attempts.wait_s("bert", ADDRESS) == 1


def test_attempts_that_are_under_way_count() -> None:
    attempts = Attempts(ManualClock(T0))
    for _ in range(5):
        assert attempts.wait_s("anna", ADDRESS) == 0
        attempts.begin("anna", ADDRESS)
    assert attempts.wait_s("anna", ADDRESS) == 1


def test_memory_is_bounded() -> None:
    attempts = Attempts(ManualClock(T0))
    for number in range(30_000):
        attempts.begin(f"user-{number}", f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(attempts._failures) == 10_000

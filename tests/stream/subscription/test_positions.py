from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.subscription.positions import SinceError, after

NOW_MS = 1_764_357_600_000


def ms_of(position: str) -> int:
    """Return the first millisecond that lies behind a position."""
    ms, _, rest = position.partition("-")
    assert int(rest) == 2**64 - 1
    return int(ms) + 1


@given(ms=st.integers(0, 2**63), sequence=st.integers(0, 2**64 - 1))
def test_a_stream_id_is_the_last_one_seen(ms: int, sequence: int) -> None:
    assert after(f"{ms}-{sequence}", NOW_MS) == f"{ms}-{sequence}"


@pytest.mark.parametrize(("text", "ago_s"), [("90s", 90), ("10m", 600), ("1.5h", 5400), ("2d", 172_800)])
def test_so_long_ago(text: str, ago_s: int) -> None:
    assert ms_of(after(text, NOW_MS)) == NOW_MS - ago_s * 1000


def test_a_time_is_included_whatever_its_zone() -> None:
    moment = datetime(2026, 1, 31, 12, 0, 0, 250_000, tzinfo=UTC)
    ms = 1_769_860_800_250
    for same in (moment, moment.astimezone(timezone(timedelta(hours=5)))):
        assert ms_of(after(same, NOW_MS)) == ms
        assert ms_of(after(same.isoformat(), NOW_MS)) == ms
    local = moment.astimezone().replace(tzinfo=None)
    assert ms_of(after(local, NOW_MS)) == ms_of(after(local.isoformat(), NOW_MS)) == ms


def test_before_the_epoch_is_the_beginning() -> None:
    assert after("100000d", NOW_MS) == "0-0"
    assert after(datetime(1970, 1, 1, tzinfo=UTC), NOW_MS) == "0-0"


@pytest.mark.parametrize(
    "text", ["", "yesterday", "m", "5", "10 minutes", "1-", "-1-1", "nans", "infd", "1e400d"]
)
def test_anything_else_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(SinceError, match=r"^'.*' is no time: use .*$"):
        after(text, NOW_MS)

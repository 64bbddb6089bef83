"""What the bed view says of a feed's clock and of what it lost."""

from __future__ import annotations

import pytest

from monitor.bed.words import bed_words
from monitor.live.ward import Ward
from tests.monitor.messages import T0, chunk, vitals


@pytest.mark.parametrize(
    ("skew_s", "session", "says"),
    [
        (None, "s1", ""),
        (0.3, "s1", ""),
        (2.34, "s1", "device clock 2.3 s behind"),
        (-61.0, "s1", "device clock 61.0 s ahead"),
        (9.0, "before", ""),
    ],
)
def test_a_clock_that_has_moved_away_is_told(skew_s: float | None, session: str, says: str) -> None:
    ward = Ward()
    ward.take_chunk(chunk(0), T0)
    ward.take_vitals(vitals(0, session=session).model_copy(update={"clock_skew_s": skew_s}))
    assert bed_words(ward.beds["bed-1"], T0)["missing"] == says

from __future__ import annotations

import numpy as np
import pytest

from monitor.tiles.span import Span, span_for


@pytest.mark.parametrize(
    ("least", "most"), [(-0.2, 1.1), (-3.0, 0.4), (-0.01, 0.02), (-20.0, 9.0), (0.5, 0.5)]
)
def test_everything_is_within_the_span(least: float, most: float) -> None:
    span = span_for(least, most)
    assert span.low <= least <= most <= span.high


def test_a_flat_line_is_not_blown_up() -> None:
    span = span_for(-0.01, 0.02)
    assert span.high - span.low == pytest.approx(1.0)


def test_a_span_is_kept_while_it_fits_and_changes_once() -> None:
    span = span_for(-0.3, 1.0)
    assert span_for(-0.25, 0.95, span) is span
    larger = span_for(-0.3, 2.4, span)
    assert larger.high - larger.low > span.high - span.low
    assert span_for(-0.3, 2.3, larger) is larger
    assert span_for(-0.3, 1.0, larger) == span


def test_no_range_makes_the_scale_go_back_and_forth() -> None:
    rng = np.random.default_rng(0)
    for _ in range(2000):
        low = rng.uniform(-10, 5)
        high = low + 10 ** rng.uniform(-2, 1)
        span = span_for(low, high, Span(-1.0, 1.0))
        assert span_for(low, high, span) is span

"""Maps as reports draw them: a band of two standard deviations, and shades that mean the same everywhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from monitor.report.maps import attention_words, band, hidden_words, shades
from monitor.shades import shade
from stream.offline import MapResult
from tests.monitor.report.test_report import analysis, traces


def test_the_band_is_two_standard_deviations_wide_to_each_side() -> None:
    plain = traces(10.0)
    assert band(plain) is None
    edges = band(replace(plain, spread=np.full_like(plain.signal, 0.25)))
    assert edges is not None
    np.testing.assert_allclose(plain.reconstruction - edges[0], 0.5, atol=1e-6)
    np.testing.assert_allclose(edges[1] - plain.reconstruction, 0.5, atol=1e-6)


def test_equal_factors_of_attention_are_equal_steps_of_darkness() -> None:
    attention = np.array([0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 50.0, np.nan], np.float32)
    expected = [0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0, np.nan]
    np.testing.assert_allclose(shade(attention), expected, atol=1e-6)


def test_shades_differ_without_colour() -> None:
    # Relative luminance falls all the way: an eye that sees no colour, and a black printer, see the same.
    colours = np.array([to_rgb(colour) for colour in shades(64)])
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) < 0).all()
    # From darkest to lightest a contrast as of text on paper, and half of the steps on each side of even.
    assert (luminance[0] + 0.05) / (luminance[-1] + 0.05) > 7
    assert (luminance[0] + 0.05) / (luminance[32] + 0.05) > 1.5
    assert (luminance[32] + 0.05) / (luminance[-1] + 0.05) > 3


@pytest.mark.parametrize("time", [True, False])
@pytest.mark.parametrize("leads", [True, False])
def test_the_words_say_which_bars_there_are(leads: bool, time: bool) -> None:
    plain = traces(10.0)
    words = attention_words(
        replace(
            plain,
            lead_attention=np.ones_like(plain.signal) if leads else None,
            temporal_attention=np.ones_like(plain.signal[0]) if time else None,
        )
    )
    assert ("bars below the leads" in words) == leads
    assert ("bar below all leads" in words) == time
    assert bool(words) == (leads or time)


def test_what_is_hidden_is_named_with_its_reason() -> None:
    found = analysis(10.0)
    assert hidden_words(found) == ""
    maps = {
        "spread": MapResult(shown=True),
        "temporal_attention": MapResult(shown=False, why_not="no information (deletion test)"),
        "lead_attention": MapResult(shown=False, why_not="not tested"),
    }
    assert hidden_words(found.model_copy(update={"explanations": maps})) == (
        "Not drawn: temporal attention, no information (deletion test); lead attention, not tested."
    )

from __future__ import annotations

import numpy as np
import pytest

from stream.vitals.medians import lower_median


@pytest.mark.parametrize("n", [1, 4, 8])
@pytest.mark.parametrize("unknown", [0.0, 0.3, 0.9, 1.0])
def test_of_what_is_known_the_lower_one_in_the_middle(n: int, unknown: float) -> None:
    rng = np.random.default_rng(n)
    values = rng.normal(size=(5, n, 12))
    values[rng.random(values.shape) < unknown] = np.nan
    for least in (1, 3):
        found = lower_median(values, least=least)
        for bed, lead in np.ndindex(5, 12):
            known = values[bed, :, lead][~np.isnan(values[bed, :, lead])]
            wanted = np.percentile(known, 50, method="lower") if len(known) >= least else np.nan
            np.testing.assert_array_equal(found[bed, lead], wanted)
    # One bed is the same without the others.
    np.testing.assert_array_equal(lower_median(values[2]), lower_median(values)[2])

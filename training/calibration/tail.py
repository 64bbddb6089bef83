"""Peaks over a threshold: how far the scores of normals may reach, from the highest of them.

What lies above a high value follows, nearly whatever it comes from, a generalised Pareto distribution
(Pickands, Ann. Statist. 3, 1975; as the threshold of a detector: Siffer et al., KDD 2017). Fitted to the
highest tenth of a hundred scores, it says which score one normal in a thousand exceeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq, minimize
from scipy.stats import chi2

from models.manifest import Tail

Float64Array = npt.NDArray[np.float64]

_SHARE = 0.1
# Fewer than ten values have no shape, and more than a fifth of all are no tail.
_FEWEST_EXCESSES = 10
_LARGEST_SHARE = 0.2
# Exponents of the beta distribution, from -0.5 to 0.5, that shapes are expected to have: mean 0.1, standard
# deviation 0.12.
_EXPECTED = (8.0, 5.0)
# Nearer to 0 the general formula loses more digits than the exponential one is wrong by.
_EXPONENTIAL = 1e-7
_CONFIDENCE = 0.95
# How far the ends of an interval are looked for: so many times nearer to and farther from the beginning of
# the tail than the level itself.
_WIDEST = 1e4
# To what part of the level they are found.
_RESOLUTION = 1e-4
_DECIMALS = 6


def fit_tail(values: Float64Array) -> Tail | None:
    r"""Fit a generalised Pareto distribution to the highest values.

    It maximises

    .. math:: \ell(\sigma, \xi) = \ln \pi(\xi) - k \ln \sigma
              - (1 + 1/\xi) \sum_{i=1}^{k} \ln(1 + \xi y_i / \sigma)

    over the excesses :math:`y_i` of the *k* highest values over the next one: the likelihood of Coles (2001,
    equation 4.10) with the expectation of Martins and Stedinger (Water Resour. Res. 37, 2001)

    .. math:: \pi(\xi) \propto (0.5 + \xi)^8 (0.5 - \xi)^5

    of the shape. Without it ten excesses often seem to prove that the tail ends at the highest of them; of a
    thousand it changes nothing.

    Parameters
    ----------
    values : numpy.ndarray of float64, shape (n,)

    Returns
    -------
    Tail or None
        The highest tenth, or the highest ten; None for fewer than 50 values, or where the highest are equal.
    """
    excesses, start = _excesses(values)
    if excesses is None:
        return None
    scale, shape = _fit(excesses)
    return Tail(
        start=round(start, _DECIMALS),
        shape=round(shape, _DECIMALS),
        scale=round(scale, _DECIMALS),
        excesses=len(excesses),
        share=len(excesses) / len(values),
    )


def level_interval(
    values: Float64Array, probability: float, patients: Sequence[str] | None = None
) -> tuple[float, float] | None:
    r"""Return the 95 % interval of the value that is exceeded with a probability.

    By profile likelihood (Coles 2001, section 4.3.3): a value *z* is inside if a tail for which *z* is that
    value is hardly less likely than the likeliest one. The number of excesses is binomial with share
    :math:`\zeta`:

    .. math:: 2 \left( \max_{\sigma, \xi, \zeta} \ell - \max_{\sigma, \xi, \zeta \,:\, z} \ell \right)
              \le c\, \chi^2_{1, 0.95}

    :math:`c`, at least 1, is by how much more the number of excesses differs between patients than it would
    if their values were independent (McCullagh and Nelder, Generalized Linear Models, 1989, section 4.5).

    Parameters
    ----------
    values : numpy.ndarray of float64, shape (n,)
    probability : float
    patients : sequence of str, optional
        Of each value; each its own if not given.

    Returns
    -------
    tuple of float or None
        None where `fit_tail` fits nothing, or the value is not in the tail.

    Notes
    -----
    Measured with ten excesses of 60 values, for tails of shape -0.2 to 0.2: it holds the truth in 97 % of
    cases, where a bootstrap, which never sees a value above the highest, does in 60 to 76 %.
    """
    excesses, start = _excesses(values)
    if excesses is None or probability >= len(excesses) / len(values):
        return None
    share = len(excesses) / len(values)
    scale, shape = _fit(excesses)
    level = scale * _scales_above(shape, share / probability)
    highest = _likelihood(excesses, scale, shape) + _binomial(len(excesses), len(values), share)
    allowed = float(chi2.ppf(_CONFIDENCE, 1)) / 2 * _clustering(values > start, patients)

    def lack(distance: float) -> float:
        # Of likelihood, beyond what is allowed: positive outside of the interval.
        def unlikely(point: Float64Array) -> float:
            shape, share = float(point[0]), float(point[1])
            if not probability < share < 1:
                return np.inf
            scale = distance / _scales_above(shape, share / probability)
            return -_likelihood(excesses, scale, shape) - _binomial(len(excesses), len(values), share)

        # A shape above 0 is possible with any excesses: at least one search begins on solid ground.
        return highest - allowed + min(_minimum(unlikely, (s, share))[0] for s in (shape, 0.1))

    low, high = level / 2, level * 2
    while lack(low) < 0 and low > level / _WIDEST:
        low /= 2
    while lack(high) < 0 and high < level * _WIDEST:
        high *= 2
    fine = level * _RESOLUTION
    return (
        round(start + (brentq(lack, low, level, xtol=fine) if lack(low) > 0 else 0.0), _DECIMALS),
        round(start + (brentq(lack, level, high, xtol=fine) if lack(high) > 0 else high), _DECIMALS),
    )


def _excesses(values: Float64Array) -> tuple[Float64Array | None, float]:
    # The highest values less the next one, and that one.
    k = max(_FEWEST_EXCESSES, round(_SHARE * len(values)))
    if k > _LARGEST_SHARE * len(values):
        return None, np.nan
    ordered = np.sort(values)
    start = float(ordered[-k - 1])
    if not (np.isfinite(start) and start < ordered[-k] < ordered[-1]):
        return None, np.nan
    return ordered[-k:] - start, start


def _likelihood(excesses: Float64Array, scale: float, shape: float) -> float:
    # No excess lies beyond the end that a tail of negative shape has.
    if not (scale > 0 and -0.5 < shape < 0.5 and 1 + shape * excesses[-1] / scale > 0):
        return -np.inf
    expected = _EXPECTED[0] * np.log(0.5 + shape) + _EXPECTED[1] * np.log(0.5 - shape)
    if abs(shape) < _EXPONENTIAL:
        spread = excesses.sum() / scale
    else:
        spread = (1 + 1 / shape) * np.log1p(shape * excesses / scale).sum()
    return float(expected - len(excesses) * np.log(scale) - spread)


def _binomial(k: int, n: int, share: float) -> float:
    return float(k * np.log(share) + (n - k) * np.log1p(-share))


def _scales_above(shape: float, ratio: float) -> float:
    # How far above its beginning a tail has the value that one in `ratio` of its values exceeds.
    if abs(shape) < _EXPONENTIAL:
        return float(np.log(ratio))
    return float((ratio**shape - 1) / shape)


def _fit(excesses: Float64Array) -> tuple[float, float]:
    def unlikely(point: Float64Array) -> float:
        return -_likelihood(excesses, float(np.exp(point[0])), float(point[1]))

    scale, shape = _minimum(unlikely, (float(np.log(excesses.mean())), 0.1))[1]
    return float(np.exp(scale)), float(shape)


def _minimum(
    function: Callable[[Float64Array], float], start: tuple[float, float]
) -> tuple[float, Float64Array]:
    # A search that needs no derivatives, for there are cliffs, and no random numbers. It subtracts values:
    # the foot of a cliff is deep, but not infinitely.
    def bounded(point: Float64Array) -> float:
        return min(function(point), 1e12)

    result = minimize(
        bounded,
        np.array(start),
        method="Nelder-Mead",
        options={"xatol": 1e-5, "fatol": 1e-7, "maxiter": 500},
    )
    return float(result.fun), result.x


def _clustering(above: npt.NDArray[np.bool_], patients: Sequence[str] | None) -> float:
    names, number = np.unique(np.arange(len(above)) if patients is None else patients, return_inverse=True)
    if len(names) in (1, len(above)):
        return 1.0
    size, share = np.bincount(number), above.mean()
    expected = float(np.sum(size)) * share * (1 - share)
    found = float(np.sum((np.bincount(number, above) - size * share) ** 2))
    return float(max(1.0, found / expected * len(names) / (len(names) - 1)))

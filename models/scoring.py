"""From what a network says to a score: NumPy only, one function for serving, calibration and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.manifest import ScoreSpec

FloatArray = npt.NDArray[np.floating]
Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

Outputs = Mapping[str, npt.NDArray[np.float32]]
"""What a network says of a batch of normalised windows, by name.

- ``recon_mean`` (batch, leads, samples): the reconstruction, in the units of the input. Every network has it.
- ``recon_logvar`` (batch, leads, samples): natural logarithm of the variance that the network expects of
  each point. Variational networks.
- ``kl`` (batch,): Kullback-Leibler divergence of the latent posterior from its prior, in nats, summed over
  latent dimensions and steps. Variational networks.
- ``temporal_attention`` (batch, steps): attention that each step of the window receives, the mean over heads
  and querying steps; sums to 1 over the steps. Networks with temporal attention.
- ``lead_attention`` (batch, leads, steps): weight of each lead at each step, the mean over heads; sums to 1
  over the leads present, 0 for absent ones. Networks with lead attention.
- ``distance`` (batch,): logarithm of the squared distance of the window's features from those of normal
  windows. Networks with a feature density.
- ``recon_restored`` (batch, leads, samples): each lead as restored from the other leads, without having seen
  it; a lead that is alone as reconstructed. Any network that runs in `models.restoration.restoring`.
"""

# The input has unit variance per lead, and float32 resolves about 1e-7 of it: a mean squared error below
# the square of that is rounding. The floor keeps the logarithm of a perfect reconstruction finite.
_MSE_FLOOR = 1e-14
_MAE_FLOOR = 1e-7
# Added to the variance that an error is divided by, as in the thesis.
_VARIANCE_FLOOR = 1e-6
# Added to each step's attention, which is one in hundreds on average: a lead of which only unattended points
# count still has a mean.
_ATTENTION_FLOOR = 1e-9

_NEEDS = {
    "mse": ("recon_mean",),
    "log_mse": ("recon_mean",),
    "log_mae": ("recon_mean",),
    "log_normalised": ("recon_mean", "recon_logvar"),
    "elbo": ("recon_mean", "recon_logvar", "kl"),
    "attention_elbo": ("recon_mean", "recon_logvar", "kl", "temporal_attention"),
    "restoration": ("recon_restored",),
}


@dataclass(frozen=True, slots=True)
class Scores:
    """What `score` finds in a batch of windows.

    Attributes
    ----------
    window : numpy.ndarray of float64, shape (batch,)
        In standard deviations of training normals that have as many leads; 0 is an average normal window,
        higher is stranger. NaN where no lead counts.
    lead : numpy.ndarray of float64, shape (batch, leads)
        The same for each lead alone. NaN where the lead does not count.
    """

    window: Float64Array
    lead: Float64Array


def point_error(
    x: FloatArray, recon: FloatArray, counted: BoolArray, logvar: FloatArray | None = None
) -> npt.NDArray[np.float32]:
    """Return the squared error of every point, NaN where the point does not count.

    Parameters
    ----------
    x, recon : numpy.ndarray, shape (batch, leads, samples)
        Normalised windows and their reconstruction, in standard deviations of the lead in its window.
    counted : numpy.ndarray of bool, shape (batch, leads, samples)
    logvar : numpy.ndarray, shape (batch, leads, samples), optional
        Logarithm of the variance that the network expects; the error is divided by that variance.

    Returns
    -------
    numpy.ndarray of float32, shape (batch, leads, samples)
        In squared standard deviations of the lead or, with `logvar`, of what the network expects.
    """
    error = np.square(x - recon, dtype=np.float32)
    if logvar is not None:
        error *= np.exp(-logvar, dtype=np.float32)
    return np.where(counted, error, np.float32(np.nan))


def lead_errors(
    x: FloatArray, outputs: Outputs, counted: BoolArray, mask: FloatArray | BoolArray, spec: ScoreSpec
) -> Float64Array:
    r"""Return the error of each lead over its counted points, of the kind that `spec` names.

    With :math:`r = x - \hat x` the residual of a point, :math:`\sigma^2` the variance that the network
    expects of it, :math:`\langle \cdot \rangle` the mean over the lead's counted points, and *N* the counted
    points of all leads of the window:

    ``mse``
        :math:`\langle r^2 \rangle`; the score of the thesis for its CAE.
    ``log_mse``
        :math:`\ln \langle r^2 \rangle`. The logarithm makes the skewed error of a lead nearly normal, and
        keeps one noisy lead from deciding alone.
    ``log_mae``
        :math:`\ln \langle |r| \rangle`. The absolute error gives less weight to the few points of a QRS
        complex that is hard to place, and more to the many of small and long deviations, as of ST segments.
    ``log_normalised``
        :math:`\ln \langle r^2 / \sigma^2 \rangle`: an error counts by how unexpected it is. After the
        uncertainty-aware score of Jiang et al., Multi-scale Cross-restoration Framework for
        Electrocardiogram Anomaly Detection, MICCAI 2023.
    ``elbo``
        :math:`\alpha \langle r^2 / (\sigma^2 + 10^{-6}) \rangle + (1 - \alpha) \langle \ln \sigma^2 \rangle
        + \beta \, \mathrm{KL} / N`. With :math:`\alpha = 1/2` and :math:`\beta = 1` the mean over leads
        is the negative evidence lower bound per point (Kingma and Welling, arXiv:1312.6114), but for a
        constant; with 0.4 and 0.6 it is the score of the thesis, divided by *N*.
    ``attention_elbo``
        The same with means over time weighted by the temporal attention (plus 1e-9, so that points without
        any have a mean too); equal attention gives ``elbo``. After equation 13 of the thesis. Its code
        multiplies the sum of the first term alone with a mean of softmax rows, which is the same number for
        every window.
    ``restoration``
        ``log_mse`` of each lead as restored from the others (see `models.restoration`); of a lead that is
        alone, as reconstructed.

    Sums run in float64 over one window at a time, so that the errors of a window do not depend on the others
    in its batch.

    Parameters
    ----------
    x : numpy.ndarray of float32, shape (batch, leads, samples)
        Normalised windows.
    outputs : mapping of str to numpy.ndarray of float32
        What the network made of them.
    counted : numpy.ndarray of bool, shape (batch, leads, samples)
        Points that count.
    mask : numpy.ndarray, shape (batch, leads)
        Non-zero for a lead that is present.
    spec : ScoreSpec
        Its ``kind``, ``alpha`` and ``beta`` are used, its statistics are not.

    Returns
    -------
    numpy.ndarray of float64, shape (batch, leads)
        NaN for a lead that is masked or has no counted point.

    Raises
    ------
    ValueError
        If `outputs` lacks what the kind of score needs.
    """
    return _lead_errors(x, outputs, counted, mask, spec, lambda name: 0.0)


def _lead_errors(
    x: FloatArray,
    outputs: Outputs,
    counted: BoolArray,
    mask: FloatArray | BoolArray,
    spec: ScoreSpec,
    shift: Callable[[str], Float64Array | float],
) -> Float64Array:
    # `shift` tells by how much an output is off, all in the direction that raises the errors (where
    # positive) or lowers them: the result is then the errors' bound, not their value.
    missing = [name for name in _NEEDS[spec.kind] if name not in outputs]
    if missing:
        raise ValueError(f"a score of kind {spec.kind!r} needs the output {', '.join(missing)}")
    counted = counted & (np.asarray(mask) != 0)[:, :, np.newaxis]
    points = np.count_nonzero(counted, axis=-1)

    # Operations in place: these arrays are large, and getting memory for them takes longer than the sums.
    recon = _NEEDS[spec.kind][0]
    squared = np.zeros(x.shape)
    # What does not count may be anything, even infinite: it is not computed with.
    np.subtract(x, outputs[recon], out=squared, where=counted, dtype=np.float64)
    np.abs(squared, out=squared)
    squared += shift(recon)
    np.maximum(squared, 0.0, out=squared)
    if spec.kind == "log_mae":
        error = np.log(np.maximum(_mean(squared, counted, points), _MAE_FLOOR))
        return np.where(points > 0, error, np.nan)
    np.square(squared, out=squared)
    if spec.kind in ("mse", "log_mse", "restoration"):
        error = _mean(squared, counted, points)
        if spec.kind != "mse":
            error = np.log(np.maximum(error, _MSE_FLOOR))
        return np.where(points > 0, error, np.nan)

    logvar = np.where(counted, outputs["recon_logvar"], np.float64(0.0))
    variance = logvar - shift("recon_logvar")
    np.exp(variance, out=variance)
    if spec.kind == "log_normalised":
        squared /= variance
        error = np.log(np.maximum(_mean(squared, counted, points), _MSE_FLOOR))
        return np.where(points > 0, error, np.nan)

    variance += _VARIANCE_FLOOR
    squared /= variance
    squared *= spec.alpha
    logvar += shift("recon_logvar")
    logvar *= 1 - spec.alpha
    squared += logvar
    if spec.kind == "elbo":
        error = _mean(squared, counted, points)
    else:
        error = _attended_mean(squared, counted, outputs["temporal_attention"], shift("temporal_attention"))
    kl = outputs["kl"].astype(np.float64) + shift("kl")
    error += (spec.beta * kl / np.maximum(points.sum(axis=-1), 1))[:, np.newaxis]
    return np.where(points > 0, error, np.nan)


def _mean(values: Float64Array, counted: BoolArray, points: npt.NDArray[np.intp]) -> Float64Array:
    mean: Float64Array = np.sum(values, axis=-1, where=counted) / np.maximum(points, 1)
    return mean


def _attended_mean(
    values: Float64Array, counted: BoolArray, attention: FloatArray, off: Float64Array | float
) -> Float64Array:
    samples = values.shape[-1] // attention.shape[-1]

    def at_points(steps: Float64Array) -> Float64Array:
        return np.where(counted, np.repeat(steps, samples, axis=-1)[:, np.newaxis, :], 0.0)

    weight = at_points(attention + np.float64(_ATTENTION_FLOOR))
    total = np.sum(weight, axis=-1)
    weight *= values
    mean: Float64Array = np.sum(weight, axis=-1) / np.where(total > 0, total, 1.0)
    if isinstance(off, float):
        return mean
    # Weights that are off by at most |off| move the mean by at most this; without limit if it may be all.
    moved: Float64Array = np.sum(at_points(off) * np.abs(values - mean[:, :, np.newaxis]), axis=-1)
    least = total - np.sum(np.abs(at_points(off)), axis=-1)
    np.divide(moved, least, out=moved, where=least > 0)
    return mean + np.where(least > 0, moved, np.copysign(np.inf, moved))


def standardise_leads(errors: Float64Array, spec: ScoreSpec) -> Float64Array:
    r"""Return lead scores: each lead's error against training normals with as many leads present.

    .. math:: s_{bl} = (e_{bl} - \mu_{ml}) / \sigma_{ml}, \qquad m = \text{number of leads present in } b

    A lead is harder to reconstruct from few others, and some leads more so than others, therefore the
    mean and the standard deviation depend on both.

    Parameters
    ----------
    errors : numpy.ndarray of float64, shape (batch, leads)
        From `lead_errors`.
    spec : ScoreSpec

    Returns
    -------
    numpy.ndarray of float64, shape (batch, leads)
    """
    row = np.maximum(np.count_nonzero(~np.isnan(errors), axis=-1) - 1, 0)
    mean: Float64Array = np.asarray(spec.lead_mean, np.float64)
    std: Float64Array = np.asarray(spec.lead_std, np.float64)
    standardised: Float64Array = (errors - mean[row]) / std[row]
    return standardised


def score(
    x: FloatArray, outputs: Outputs, counted: BoolArray, mask: FloatArray | BoolArray, spec: ScoreSpec
) -> Scores:
    r"""Score a batch of windows.

    The raw score of `raw_scores`, standardised once more by what it does on training normals with as many
    leads *m* (an average over few leads spreads wider):

    .. math:: S_b = (R_b - \mu_m) / \sigma_m

    A window's score does not depend on the others in its batch.

    Parameters
    ----------
    x : numpy.ndarray of float32, shape (batch, leads, samples)
        Normalised windows.
    outputs : mapping of str to numpy.ndarray of float32
        What the network made of them.
    counted : numpy.ndarray of bool, shape (batch, leads, samples)
        Points that count: those of present leads at which the source had a valid sample.
    mask : numpy.ndarray, shape (batch, leads)
        Non-zero for a lead that is present.
    spec : ScoreSpec
        From the manifest of the model that made `outputs`.

    Returns
    -------
    Scores

    Raises
    ------
    ValueError
        If `outputs` lacks what the kind of score needs.

    Notes
    -----
    Standardising per lead rather than with one scale for all is what makes few leads usable (measured:
    AUROC with lead II alone .69-.80 against .59-.75).
    """
    leads = standardise_leads(lead_errors(x, outputs, counted, mask, spec), spec)
    return Scores(window=_window_scores(raw_scores(leads, outputs, spec), leads, spec), lead=leads)


def raw_scores(leads: Float64Array, outputs: Outputs, spec: ScoreSpec) -> Float64Array:
    r"""Return window scores before their last standardisation.

    .. math:: R_b = \frac{1}{m} \sum_{l\ \text{present}} s_{bl} + w \frac{d_b - \mu^d_m}{\sigma^d_m}

    with the lead scores :math:`s_{bl}` of the *m* leads present, the feature distance :math:`d_b` and its
    weight *w*.

    Parameters
    ----------
    leads : numpy.ndarray of float64, shape (batch, leads)
        From `standardise_leads`.
    outputs : mapping of str to numpy.ndarray of float32
    spec : ScoreSpec

    Returns
    -------
    numpy.ndarray of float64, shape (batch,)
        NaN where no lead counts.

    Raises
    ------
    ValueError
        If the distance is used and `outputs` lacks it.
    """
    return _raw_scores(leads, outputs, spec, lambda name: 0.0)


def _raw_scores(
    leads: Float64Array, outputs: Outputs, spec: ScoreSpec, shift: Callable[[str], Float64Array | float]
) -> Float64Array:
    # `shift` as in `_lead_errors`.
    count = np.count_nonzero(~np.isnan(leads), axis=-1)
    raw: Float64Array = np.sum(leads, axis=-1, where=~np.isnan(leads)) / np.maximum(count, 1)
    if spec.distance_weight:
        if "distance" not in outputs:
            raise ValueError("the score needs the output distance")
        row = np.maximum(count - 1, 0)
        off = outputs["distance"] + shift("distance") - np.asarray(spec.distance_mean)[row]
        raw += spec.distance_weight * off / np.asarray(spec.distance_std)[row]
    return np.where(count > 0, raw, np.nan)


def _window_scores(raw: Float64Array, leads: Float64Array, spec: ScoreSpec) -> Float64Array:
    row = np.maximum(np.count_nonzero(~np.isnan(leads), axis=-1) - 1, 0)
    window: Float64Array = (raw - np.asarray(spec.count_mean)[row]) / np.asarray(spec.count_std)[row]
    return window


def sensitivity(
    x: FloatArray,
    outputs: Outputs,
    counted: BoolArray,
    mask: FloatArray | BoolArray,
    spec: ScoreSpec,
    *,
    atol: float,
    rtol: float,
) -> Float64Array:
    """Return how much the score of each window moves, at most, when its outputs move within a tolerance.

    Every kind of error is monotone in each residual, variance, divergence and weight, and a score is monotone
    in the errors of its leads: the bound is the score with everything as far off as allowed, all in one
    direction. Scores of a model whose training normals hardly differ from each other magnify the rounding of
    its outputs; so does a variance that the network expects to be small.

    Parameters
    ----------
    x, outputs, counted, mask, spec
        As for `score`; at least one lead counts in each window.
    atol, rtol : float
        Each output moves by at most ``atol + rtol * |output|``.

    Returns
    -------
    numpy.ndarray of float64, shape (batch,)
    """

    def bound(sign: float) -> Float64Array:
        def shift(name: str) -> Float64Array:
            return sign * (atol + rtol * np.abs(outputs[name].astype(np.float64)))

        leads = standardise_leads(_lead_errors(x, outputs, counted, mask, spec, shift), spec)
        return _window_scores(_raw_scores(leads, outputs, spec, shift), leads, spec)

    found = score(x, outputs, counted, mask, spec).window
    most: Float64Array = np.maximum(bound(1.0) - found, found - bound(-1.0))
    return most

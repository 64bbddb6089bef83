"""The distribution of a trained network's features on normal windows (see `models.networks.density`)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.networks.density import FeatureDensity
from training.dataset import WindowSet
from training.fitting.augment import random_masks

Float64Array = npt.NDArray[np.float64]

SHRINKAGE = 0.3
"""Share by which correlations are drawn towards zero: 64 and more features, from a few hundred recordings,
have directions in which they hardly vary, and a distance without shrinkage would be about those. Development
figures hardly depend on it: .774 with 0.1 and .776 with 0.5, for features of the code."""

# A feature that varies less than this among normals is one of a dead channel, and says nothing.
_DEAD = 1e-4


def fit_density(network: nn.Module, normals: WindowSet, *, seed: int = 0, batch: int = 64) -> None:
    """Fit a network's feature density to normal windows, in place.

    Parameters
    ----------
    network : torch.nn.Module
        Trained; its `density` is set. Nothing happens if it has none.
    normals : WindowSet
        Windows of training normals.
    seed : int
        Of the random leads that are taken away.
    batch : int

    Raises
    ------
    ValueError
        If there are fewer than two windows.
    """
    density = getattr(network, "density", None)
    if not isinstance(density, FeatureDensity):
        return
    if len(normals) < 2:
        raise ValueError(f"too few windows ({len(normals)}) to fit a density to")
    kept = random_masks(normals.mask, 0.0, np.random.default_rng(seed))
    # Windows with all their leads say what is normal; as many again with random ones, that fewer are too.
    drawn = [normals, normals.keep_leads(kept)]
    features = np.concatenate([_features(network, density, windows, batch) for windows in drawn])
    mean, whiten = whitening(features)
    density.mean.copy_(torch.from_numpy(mean))
    density.whiten.copy_(torch.from_numpy(whiten))


def whitening(features: Float64Array, shrinkage: float = SHRINKAGE) -> tuple[Float64Array, Float64Array]:
    r"""Return the mean of features and a matrix *W* that whitens them.

    :math:`W = L^{-1} S^{-1}`, with *S* the features' standard deviations and *L* the Cholesky factor of their
    correlations, the latter drawn towards the identity.

    Parameters
    ----------
    features : numpy.ndarray of float64, shape (windows, features)
    shrinkage : float
        0 to 1; 0 needs more windows than features.

    Returns
    -------
    mean : numpy.ndarray of float64, shape (features,)
    whiten : numpy.ndarray of float64, shape (features, features)
        Columns of features that do not vary are zero.
    """
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    alive = deviation > _DEAD
    scale = np.where(alive, deviation, 1.0)
    z = (features - mean) / scale * alive
    correlation = (1 - shrinkage) * (z.T @ z / len(z))
    # Of dead features, too, so that they stand alone and the factor exists.
    np.fill_diagonal(correlation, 1.0)
    inverse = np.linalg.inv(np.linalg.cholesky(correlation))
    return mean, inverse / scale * alive


def _features(network: nn.Module, density: FeatureDensity, windows: WindowSet, batch: int) -> Float64Array:
    found: list[Tensor] = []
    device = density.mean.device
    watch = density.register_forward_pre_hook(lambda _, given: found.append(density.features(given[0]).cpu()))
    network.eval()
    try:
        with torch.no_grad():
            for at in range(0, len(windows), batch):
                piece = slice(at, at + batch)
                network(
                    torch.from_numpy(windows.x[piece]).to(device),
                    torch.from_numpy(windows.mask[piece]).to(device),
                )
    finally:
        watch.remove()
    return torch.cat(found).numpy().astype(np.float64)

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra train")

from models.architectures import CaeConfig  # noqa: E402
from models.manifest import FilterSpec, WindowSpec  # noqa: E402
from models.networks.cae import Cae  # noqa: E402
from stream.leads import LEADS  # noqa: E402
from tests.training.conftest import made_up_signal  # noqa: E402
from training.dataset import CropSource, grid_windows  # noqa: E402
from training.fit import FitConfig, fit, random_masks  # noqa: E402

FILTER = FilterSpec()
SPEC = WindowSpec(fs=50, samples=200, hop=50)
TINY = CaeConfig(samples=200, channels=(8, 8), wide_kernel=5)
CONFIG = FitConfig(epochs=4, batch=8, crops_per_record=3)


@pytest.fixture(scope="module")
def data():
    train = CropSource([made_up_signal(i) for i in range(6)], LEADS, FILTER, SPEC)
    return train, grid_windows([made_up_signal(i) for i in (10, 11)], LEADS, FILTER, SPEC)


def network(seed: int = 0) -> Cae:
    torch.manual_seed(seed)
    return Cae(TINY)


def test_training_lowers_the_loss_and_keeps_the_best_epoch(data) -> None:
    fitted = fit(network(), *data, replace(CONFIG, epochs=6))
    validation = [loss for _, loss in fitted.history]
    assert len(validation) == 6
    assert validation[-1] < validation[0]
    assert fitted.epoch == 1 + int(np.argmin(validation))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(data) -> None:
    first, again = (fit(network(), *data, CONFIG).weights for _ in range(2))
    other = fit(network(), *data, replace(CONFIG, seed=1)).weights
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["wide.weight"], other["wide.weight"])


class InterruptedTrainingError(Exception):
    pass


def test_an_interrupted_training_ends_with_the_same_weights(data, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.checkpoint"
    train, validation = data

    class Stops:
        def __init__(self) -> None:
            self.epochs = 0

        def __len__(self) -> int:
            return len(train)

        def draw(self, per_record, rng):
            self.epochs += 1
            if self.epochs == 3:
                raise InterruptedTrainingError
            return train.draw(per_record, rng)

    with pytest.raises(InterruptedTrainingError):
        fit(network(), Stops(), validation, CONFIG, checkpoint=checkpoint)  # type: ignore[arg-type]
    resumed = fit(network(seed=7), train, validation, CONFIG, checkpoint=checkpoint)
    whole = fit(network(), train, validation, CONFIG)
    assert resumed.history == whole.history
    assert resumed.epoch == whole.epoch
    assert all(np.array_equal(resumed.weights[name], whole.weights[name]) for name in whole.weights)


def test_a_checkpoint_of_another_training_is_refused(data, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.checkpoint"
    fit(network(), *data, replace(CONFIG, epochs=1), checkpoint=checkpoint)
    with pytest.raises(ValueError, match="other settings"):
        fit(network(), *data, replace(CONFIG, epochs=1, noise=0.5), checkpoint=checkpoint)


def test_training_stops_when_it_no_longer_helps(data) -> None:
    # A rate at which nothing is learnt: no epoch after the first can be better by more than rounding.
    fitted = fit(network(), *data, replace(CONFIG, epochs=50, learning_rate=1e-30, patience=2))
    assert len(fitted.history) == 3
    assert fitted.epoch == 1


def test_nothing_to_train_on_is_refused(data) -> None:
    with pytest.raises(ValueError, match="0 recordings to train on"):
        fit(network(), CropSource([], LEADS, FILTER, SPEC), data[1], CONFIG)


def test_masks_keep_every_number_of_leads() -> None:
    masks = random_masks(4000, 12, 0.5, np.random.default_rng(0))
    count = masks.sum(axis=1)
    assert count.min() == 1
    assert 0.5 < (count == 12).mean() < 0.6
    assert np.ptp(masks[count < 12].mean(axis=0)) < 0.1  # every lead as often


def test_the_network_ignores_what_stands_in_masked_leads() -> None:
    model = network().eval()
    x, mask = torch.randn(2, 12, 200), torch.ones(2, 12)
    mask[:, 3:] = 0
    with torch.no_grad():
        given, cleaned = (model(values, mask)["recon_mean"] for values in (x, x * mask.unsqueeze(-1)))
    assert torch.equal(given, cleaned)

from __future__ import annotations

import errno
import resource
import signal
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra train")

from models.architectures import CaeConfig, NetworkConfig, VaeBilstmConfig, VaeBilstmMhaConfig  # noqa: E402
from models.manifest import AlarmRule, WindowSpec  # noqa: E402
from models.networks.build import build  # noqa: E402
from stream.leads import LEADS  # noqa: E402
from tests.training.conftest import made_up_signal  # noqa: E402
from training.config import Augmentation, ElboLoss, FitConfig, MseLoss, TrainConfig  # noqa: E402
from training.dataset import CropSource, WindowSet, grid_windows  # noqa: E402
from training.fitting.checkpoint import CheckpointError, Epoch  # noqa: E402
from training.fitting.fit import Fitted, TrainingError, choose_device, fit  # noqa: E402
from training.recordings import Signal  # noqa: E402

SPEC = WindowSpec(fs=50, samples=200, hop=50)
FIT = FitConfig(epochs=4, batch=8, crops_per_record=3)
CAE = CaeConfig(samples=200, channels=(8, 8), wide_kernel=5)
VAE = VaeBilstmConfig(samples=200, patch=20, hidden=8, latent=4, latent_steps=2, decoder_hidden=8)
MHA = VaeBilstmMhaConfig(
    samples=200, patch=20, encoder=(8, 8), latent=4, lead_width=8, temporal_width=8, decoder=(8, 8)
)
ELBO = ElboLoss(annealing=0.5, free_bits=0.02, variance_warmup=0.2)


def config(network: NetworkConfig = CAE, *, fit: FitConfig = FIT, **parts: object) -> TrainConfig:
    loss = MseLoss() if network.architecture == "cae" else ELBO
    return TrainConfig.model_validate(
        {
            "name": "tiny",
            "description": "",
            "network": network,
            "window": SPEC,
            "loss": loss,
            "fit": fit,
            "alarm": AlarmRule(k=9, n=12, clear=3),
        }
        | parts
    )


@pytest.fixture(scope="module")
def data() -> tuple[CropSource, WindowSet]:
    filter_spec = config().filter
    train = CropSource([made_up_signal(i) for i in range(6)], LEADS, filter_spec, SPEC)
    return train, grid_windows([made_up_signal(i) for i in (10, 11)], LEADS, filter_spec, SPEC)


def train(given, settings: TrainConfig, *, seed: int = 0, **options) -> Fitted:
    torch.manual_seed(seed)
    return fit(build(settings.network), *given, settings, **options)


def same_weights(one: Fitted, other: Fitted) -> bool:
    return all(np.array_equal(one.weights[name], other.weights[name]) for name in one.weights)


def test_training_lowers_the_loss_and_keeps_the_best_epoch(data) -> None:
    fitted = train(data, config(fit=FIT.model_copy(update={"epochs": 6})))
    validation = [epoch.validation_loss for epoch in fitted.history]
    assert len(validation) == 6
    assert validation[-1] < validation[0]
    assert fitted.epoch == 1 + int(np.argmin(validation))
    assert [epoch.epoch for epoch in fitted.history] == [1, 2, 3, 4, 5, 6]
    assert fitted.history[0].active is None


@pytest.mark.parametrize("network", [VAE, MHA], ids=["vae-bilstm", "vae-bilstm-mha"])
def test_a_variational_network_learns_and_reports_its_latents(data, network: NetworkConfig) -> None:
    settings = config(network, fit=FIT.model_copy(update={"epochs": 6, "learning_rate": 1e-2}))
    fitted = train(data, settings)
    losses = [epoch.validation_loss for epoch in fitted.history]
    assert losses[-1] < losses[0]
    last = fitted.history[-1]
    assert last.beta == 1.0
    assert fitted.history[0].beta == pytest.approx(1 / 3)
    assert last.active in range(5)
    assert last.validation_loss == pytest.approx(last.validation_reconstruction + last.validation_divergence)


@pytest.mark.parametrize("network", [CAE, VAE], ids=["cae", "vae-bilstm"])
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(data, network: NetworkConfig) -> None:
    everything = Augmentation(wander=0.2, muscle=0.2, rate_warp=0.1, time_mask=0.1)
    settings = config(network, augmentation=everything)
    one, again = train(data, settings), train(data, settings)
    other = train(data, config(network, fit=FIT.model_copy(update={"seed": 1}), augmentation=everything))
    assert same_weights(one, again)
    assert one.history == again.history
    assert not same_weights(one, other)


class InterruptedTrainingError(Exception):
    pass


@pytest.mark.parametrize("network", [CAE, VAE], ids=["cae", "vae-bilstm"])
def test_an_interrupted_training_ends_as_an_uninterrupted_one(
    data, tmp_path: Path, network: NetworkConfig
) -> None:
    settings, checkpoint = config(network), tmp_path / "run.checkpoint"

    def interrupt(history: list[Epoch]) -> None:
        if len(history) == 2:
            raise InterruptedTrainingError

    with pytest.raises(InterruptedTrainingError):
        train(data, settings, checkpoint=checkpoint, report=interrupt)
    reports: list[int] = []
    resumed = train(
        data, settings, seed=7, checkpoint=checkpoint, report=lambda history: reports.append(len(history))
    )
    whole = train(data, settings)
    assert resumed.history == whole.history
    assert resumed.epoch == whole.epoch
    assert same_weights(resumed, whole)
    assert reports == [2, 3, 4]


def test_a_checkpoint_of_another_training_is_refused_and_says_why(data, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.checkpoint"
    one_epoch = FIT.model_copy(update={"epochs": 1})
    train(data, config(fit=one_epoch), checkpoint=checkpoint, data="a")
    noisy = Augmentation(noise=0.5)
    with pytest.raises(CheckpointError, match=r"augmentation.noise was 0.2, is 0.5.*remove it"):
        train(data, config(fit=one_epoch, augmentation=noisy), checkpoint=checkpoint, data="a")
    with pytest.raises(CheckpointError, match="data was a, is b"):
        train(data, config(fit=one_epoch), checkpoint=checkpoint, data="b")
    with pytest.raises(CheckpointError, match=r"network.architecture was cae, is vae-bilstm"):
        train(data, config(VAE, fit=one_epoch, loss=MseLoss()), checkpoint=checkpoint, data="a")
    checkpoint.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="is no checkpoint: remove it"):
        train(data, config(fit=one_epoch), checkpoint=checkpoint)


def test_a_full_disk_is_named_and_leaves_the_last_checkpoint(data, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.checkpoint"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill_the_disk(history: list[Epoch]) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))

    try:
        with pytest.raises(OSError, match="too large") as caught:
            train(data, config(), checkpoint=checkpoint, report=fill_the_disk)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(checkpoint))
    assert [path.name for path in tmp_path.iterdir()] == ["run.checkpoint"]
    assert same_weights(train(data, config(), checkpoint=checkpoint), train(data, config()))


def test_training_stops_when_it_no_longer_helps(data) -> None:
    # A rate at which nothing is learnt: no epoch after the first can be better by more than rounding.
    stuck = FIT.model_copy(update={"epochs": 50, "learning_rate": 1e-30, "patience": 2})
    fitted = train(data, config(fit=stuck))
    assert len(fitted.history) == 3
    assert fitted.epoch == 1


def test_patience_begins_when_the_annealing_is_over(data) -> None:
    stuck = FIT.model_copy(update={"epochs": 20, "learning_rate": 1e-30, "patience": 2})
    loss = ElboLoss(schedule="linear", annealing=0.4)
    assert len(train(data, config(VAE, fit=stuck, loss=loss)).history) == 10


def test_without_validation_all_epochs_are_run_and_the_last_weights_taken(data) -> None:
    source, _ = data
    fitted = train((source, None), config())
    assert fitted.epoch == 4
    assert fitted.history[-1].validation_loss is None
    validated = train(data, config())
    assert [epoch.loss for epoch in fitted.history] == [epoch.loss for epoch in validated.history]


def test_only_the_recordings_that_were_chosen_are_trained_on(data) -> None:
    _, validation = data
    few = CropSource([made_up_signal(i) for i in (2, 4)], LEADS, config().filter, SPEC)
    chosen = train(data, config(), records=np.array([2, 4]))
    assert same_weights(chosen, train((few, validation), config()))


def test_nothing_to_train_on_is_refused(data) -> None:
    source, validation = data
    filter_spec = config().filter
    empty = CropSource([], LEADS, filter_spec, SPEC)
    with pytest.raises(TrainingError, match="no recordings to train on"):
        train((empty, validation), config())
    with pytest.raises(TrainingError, match="no windows to validate with"):
        train((source, grid_windows([], LEADS, filter_spec, SPEC)), config())
    silent = CropSource([Signal(500, LEADS, np.zeros((5000, 12)))], LEADS, filter_spec, SPEC)
    with pytest.raises(TrainingError, match="no recording to train on has a usable lead"):
        train((silent, validation), config())


def test_a_loss_that_is_no_number_is_refused(data) -> None:
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) in epoch \d: lower fit.learning_rate"):
        train(data, config(fit=FIT.model_copy(update={"learning_rate": 1e30})))


def test_the_gradient_is_clipped(data) -> None:
    # Adam divides by the size of the gradient, so that only its epsilon shows a tiny limit.
    free, clipped = (
        train(data, config(fit=FIT.model_copy(update={"gradient_clip": limit, "epochs": 1})))
        for limit in (None, 1e-12)
    )
    torch.manual_seed(0)
    first = {name: value.numpy() for name, value in build(CAE).state_dict().items()}

    def moved(fitted: Fitted) -> float:
        return max(np.abs(fitted.weights[name] - first[name]).max() for name in first)

    assert moved(clipped) < 0.01 * moved(free)


def test_a_device_that_is_not_there_is_refused() -> None:
    assert choose_device("cpu").type == "cpu"
    if not torch.cuda.is_available():
        assert choose_device("auto").type == "cpu"
        with pytest.raises(TrainingError, match="no CUDA device"):
            choose_device("cuda")


def test_the_network_ignores_what_stands_in_masked_leads() -> None:
    model = build(CAE).eval()
    x, mask = torch.randn(2, 12, 200), torch.ones(2, 12)
    mask[:, 3:] = 0
    with torch.no_grad():
        given, cleaned = (model(values, mask)["recon_mean"] for values in (x, x * mask.unsqueeze(-1)))
    assert torch.equal(given, cleaned)

"""Operations counted from a configuration are those that PyTorch counts while it runs the network."""

from __future__ import annotations

import warnings

import pytest

from bench.flops import flop_per_window
from models.architectures import CaeConfig, NetworkConfig, VaeBilstmConfig, VaeBilstmMhaConfig

torch = pytest.importorskip("torch", reason="needs the extra train")


@pytest.mark.parametrize(
    "config",
    [
        CaeConfig(),
        CaeConfig(samples=64, channels=(8, 5), density=False),
        VaeBilstmConfig(samples=80, hidden=7, latent_steps=5, decoder_hidden=6),
        VaeBilstmMhaConfig(samples=80, encoder=(7, 5), decoder=(5, 7), lead_width=8, temporal_width=16),
        VaeBilstmMhaConfig(samples=20, patch=1, density=False, lead_code=False),
    ],
    ids=["cae", "cae-small", "vae-bilstm", "vae-bilstm-mha", "patch-1"],
)
def test_the_count_is_that_of_torch(config: NetworkConfig) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    from models.networks.build import build

    network = build(config).eval()
    with warnings.catch_warnings():
        # Of torch's own flags, about GPUs that are not there.
        warnings.simplefilter("ignore")
        # Without oneDNN an LSTM is the products it is made of, which the counter sees.
        with (
            torch.no_grad(),
            torch.backends.mkldnn.flags(enabled=False),
            FlopCounterMode(display=False) as counter,
        ):
            network(torch.zeros(1, config.leads, config.samples), torch.ones(1, config.leads))
    assert flop_per_window(config) == counter.get_total_flops()


def test_the_network_of_the_thesis_takes_ten_billion() -> None:
    assert flop_per_window(VaeBilstmMhaConfig.thesis()) == pytest.approx(10.56e9, rel=0.001)

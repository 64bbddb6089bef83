from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from models.architectures import CaeConfig, NetworkConfig, VaeBilstmConfig, VaeBilstmMhaConfig

ANY: TypeAdapter[NetworkConfig] = TypeAdapter(NetworkConfig)


@pytest.mark.parametrize(
    "fields", [{"kernel": 4}, {"wide_kernel": 2}, {"samples": 801}, {"channels": (0,)}, {"depth": 3}]
)
def test_a_cae_that_cannot_be_built_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        CaeConfig.model_validate(fields)


@pytest.mark.parametrize("kind", [VaeBilstmConfig, VaeBilstmMhaConfig])
def test_patches_must_fill_the_window(kind: type[VaeBilstmConfig | VaeBilstmMhaConfig]) -> None:
    with pytest.raises(ValidationError, match="801 is not a multiple of the patch, 8"):
        kind(samples=801)


@pytest.mark.parametrize("latent_steps", [3, 200])
def test_latent_vectors_must_share_the_steps_equally(latent_steps: int) -> None:
    with pytest.raises(ValidationError, match=f"100 steps do not divide by {latent_steps}"):
        VaeBilstmConfig(latent_steps=latent_steps)


@pytest.mark.parametrize(("name", "width", "heads"), [("lead_width", 6, 4), ("temporal_width", 12, 8)])
def test_heads_must_share_the_width_equally(name: str, width: int, heads: int) -> None:
    with pytest.raises(ValidationError, match=f"{name}: {width} is not a multiple of {heads} heads"):
        VaeBilstmMhaConfig.model_validate({name: width})


@pytest.mark.parametrize(
    "config", [CaeConfig(), CaeConfig(density=False), VaeBilstmConfig(hidden=7), VaeBilstmMhaConfig.thesis()]
)
def test_any_configuration_survives_its_own_json(config: NetworkConfig) -> None:
    assert ANY.validate_json(ANY.dump_json(config)) == config


def test_an_unknown_architecture_says_which_there_are() -> None:
    with pytest.raises(ValidationError, match="'cae', 'vae-bilstm', 'vae-bilstm-mha'"):
        ANY.validate_python({"architecture": "transformer"})


def test_only_the_thesis_measures_no_distance() -> None:
    assert all(config.density for config in (CaeConfig(), VaeBilstmConfig(), VaeBilstmMhaConfig()))
    assert not any(config.density for config in (VaeBilstmConfig.thesis(), VaeBilstmMhaConfig.thesis()))

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from models.architectures import CaeConfig, VaeBilstmConfig, VaeBilstmMhaConfig
from training.config import ConfigError, config_names, load_config

SHIPPED = [
    "cae-100hz",
    "thesis-cae",
    "thesis-vae-bilstm",
    "thesis-vae-bilstm-mha",
    "vae-bilstm-100hz",
    "vae-bilstm-mha-100hz",
]

MINIMAL = """
name = "mine"
description = "a try"
[network]
architecture = "cae"
[window]
fs = 100.0
samples = 800
hop = 50
[alarm]
k = 17
n = 24
clear = 8
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


def test_every_shipped_configuration_is_valid_and_called_as_its_file() -> None:
    assert config_names() == SHIPPED
    for name in SHIPPED:
        assert load_config(name).name == name


def test_the_default_model_is_trained_as_it_was() -> None:
    config = load_config("cae-100hz")
    assert config.network == CaeConfig()
    fit, augmentation = config.fit, config.augmentation
    assert (fit.epochs, fit.patience, fit.batch, fit.crops_per_record) == (30, 10, 32, 5)
    assert (fit.learning_rate, fit.weight_decay, fit.gradient_clip, fit.seed) == (1e-3, 0.0, None, 0)
    assert (augmentation.all_leads_share, augmentation.noise) == (0.2, 0.2)
    others = augmentation.model_dump(exclude={"all_leads_share", "noise"})
    assert set(others.values()) == {0.0}
    assert config.loss.kind == "mse"
    assert (config.alarm.k, config.alarm.n, config.alarm.clear) == (17, 24, 8)


def test_the_thesis_configurations_have_its_sizes() -> None:
    assert load_config("thesis-vae-bilstm").network == VaeBilstmConfig.thesis()
    assert load_config("thesis-vae-bilstm-mha").network == VaeBilstmMhaConfig.thesis()
    cae = load_config("thesis-cae").network
    assert isinstance(cae, CaeConfig)
    assert cae.channels == (32, 64, 128)
    for name in SHIPPED:
        if name.startswith("thesis-"):
            window = load_config(name).window
            assert (window.fs, window.hop) == (500.0, 250)
            assert window.seconds == pytest.approx(1.0, abs=0.01)


def test_what_is_not_written_has_its_default(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, MINIMAL))
    assert config.fit == load_config("cae-100hz").fit
    assert config.filter.highpass_hz == 0.5


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("hop = 50", "hop = 50\nstride = 2", "mine.toml: window.stride: there is no such key"),
        ('architecture = "cae"', 'architecture = "gan"', "mine.toml: network: "),
        (
            'architecture = "cae"',
            'architecture = "cae"\nlayers = 3',
            "mine.toml: network.layers: there is no such key",
        ),
        ("fs = 100.0", 'fs = "fast"', "mine.toml: window.fs: .*number.*, is 'fast'"),
        ("fs = 100.0", "fs = -100.0", "mine.toml: window.fs: .*greater than 0.*, is -100"),
        ("samples = 800", "samples = 400", "mine.toml: network.samples: 800, but window.samples: 400"),
        ("hop = 50", "hop = 200", "mine.toml: window.hop: 200 is more than a second"),
        ("k = 17\nn = 24", "k = 9\nn = 16", "alarm.n: 16 windows span less than two window lengths"),
        ("clear = 8", "clear = 20", "alarm: needs clear < k <= n"),
        ('name = "mine"', "", "mine.toml: name: is missing"),
        ("[alarm]", '[loss]\nkind = "elbo"\n[alarm]', "loss.kind: elbo needs a variational network, not cae"),
        (
            "[alarm]",
            '[score]\nkind = "attention_elbo"\n[alarm]',
            "score.kind: attention_elbo needs a variational network, not cae",
        ),
        (
            "[alarm]",
            '[loss]\nkind = "mse"\nbeta_max = 1.0\n[alarm]',
            "mine.toml: loss.beta_max: there is no such key",
        ),
        (
            "[alarm]",
            '[score]\nkind = "guess"\n[alarm]',
            "mine.toml: score.kind: must be one of mse, log_mse, .*, is 'guess'",
        ),
        ("[alarm]", "[score]\nalpha = 0.4\n[alarm]", "score: log_mse has neither alpha nor beta"),
        (
            'architecture = "cae"\n[window]',
            'architecture = "cae"\ndensity = false\n[score]\ndistance_weight = 1\n[window]',
            "score.distance_weight: needs a network with a density",
        ),
        ("[alarm]", "[fit]\nepochs = 0\n[alarm]", "mine.toml: fit.epochs: .*greater than 0, is 0"),
        ("[alarm]", "[alarm", "mine.toml: not TOML .*line 10"),
    ],
)
def test_a_wrong_configuration_is_one_line_with_its_key(
    tmp_path: Path, was: str, becomes: str, said: str
) -> None:
    path = write(tmp_path, MINIMAL.replace(was, becomes, 1))
    with pytest.raises(ConfigError, match=said) as caught:
        load_config(path)
    assert "\n" not in str(caught.value)


def test_several_mistakes_are_counted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"window.hops: there is no such key \(and 1 more\)|\(and 1 more\)"):
        load_config(write(tmp_path, MINIMAL.replace("hop =", "hops =")))


def test_an_unknown_name_lists_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no configuration 'cae': name one of cae-100hz, thesis-cae"):
        load_config("cae")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)


def test_a_value_can_be_set_from_outside() -> None:
    config = load_config(
        "cae-100hz", ["fit.epochs=3", "name=mine", "network.channels=[8, 8]", 'score.kind="mse"']
    )
    assert (config.fit.epochs, config.name, config.score.kind) == (3, "mine", "mse")
    assert config.network.model_dump()["channels"] == (8, 8)
    assert load_config("cae-100hz", ["augmentation.wander=0.3"]).augmentation.wander == 0.3


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("fit.epochs", "--set fit.epochs: write it as section.key=value"),
        ("=3", "write it as section.key=value"),
        ("name.epochs=3", "name is not a section"),
        ("fit.epoch=3", "fit.epoch: there is no such key"),
        ("fit.epochs=many", "fit.epochs: .*, is 'many'"),
    ],
)
def test_a_value_that_cannot_be_set_is_one_line(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config("cae-100hz", [override])


def test_reading_a_configuration_needs_no_torch() -> None:
    code = "import sys, training.config as c; c.load_config('cae-100hz'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

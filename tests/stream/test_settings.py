"""Settings and where they come from, and the broker URL made from them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from bench.doctor import configuration
from stream.settings import (
    BrokerError,
    Settings,
    SettingsError,
    Unknown,
    broker_with_prefix,
    origins,
    unknown_variables,
)
from tests.command_line import assert_refused, run


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("BACKEND", "CONFIG", "REDIS_URL", "SECRETS"):
        monkeypatch.delenv(f"BEDSIDE_{name}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))


def test_the_environment_sets_what_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().prefix == "bedside:"
    monkeypatch.setenv("BEDSIDE_PREFIX", "ward-3:")
    monkeypatch.setenv("BEDSIDE_REDIS_URL", "redis://here")
    settings = Settings()
    assert (settings.prefix, settings.redis_url, settings.model) == ("ward-3:", "redis://here", "cae-100hz")


def test_the_environment_goes_before_secrets_and_those_before_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usual = tmp_path / "home" / "bedside" / "bedside.toml"
    usual.parent.mkdir(parents=True)
    usual.write_text('prefix = "a:"\nredis_url = "redis://file"\nmodel = "vae-bilstm-100hz"\n')
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "bedside_redis_url").write_text("rediss://worker:hidden-word@secret/0\n")
    monkeypatch.setenv("BEDSIDE_SECRETS", str(secrets))
    monkeypatch.setenv("BEDSIDE_MODEL", "cae-100hz")
    settings = Settings()
    assert settings.prefix == "a:"
    assert settings.redis_url == "rediss://worker:hidden-word@secret/0"
    assert settings.model == "cae-100hz"
    sources = {one.name: one.source for one in origins()}
    assert sources["prefix"] == f"file {usual}"
    assert sources["redis_url"] == f"secret in {secrets}"
    assert sources["model"] == "environment: BEDSIDE_MODEL"
    assert sources["backend"] == "default"
    for options in ((), ("--json",)):
        shown = run("config", "show", *options)
        assert shown.returncode == 0, shown.stderr
        assert "rediss://secret/0" in shown.stdout
        assert "hidden-word" not in shown.stdout
    told = json.loads(shown.stdout)
    assert told["config_file"] == str(usual)
    assert {one["name"] for one in told["settings"]} == set(Settings.model_fields)


def test_a_variable_that_is_misspelled_is_told_with_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    assert unknown_variables() == []
    for name in ("BEDSIDE_REDIS_ULR", "BEDSIDE_XYZZY", "Bedside_Redis_URL", "BEDSIDE_DATA"):
        monkeypatch.setenv(name, "redis://worker:hidden-word@here")
    wanted = [Unknown("BEDSIDE_REDIS_ULR", "BEDSIDE_REDIS_URL"), Unknown("BEDSIDE_XYZZY", None)]
    assert unknown_variables() == wanted
    shown = run("config", "show", "--json")
    assert json.loads(shown.stdout)["unknown"] == [asdict(one) for one in wanted]
    # Every command says so, once, and does its work.
    assert shown.returncode == 0
    assert shown.stderr.splitlines() == [
        "bedside: BEDSIDE_REDIS_ULR is no setting: BEDSIDE_REDIS_URL?",
        "bedside: BEDSIDE_XYZZY is no setting",
    ]
    assert "ignored: BEDSIDE_XYZZY is no setting\n" in run("config", "show").stdout
    assert "hidden-word" not in shown.stdout + shown.stderr
    told = [finding.text for finding in configuration(Settings()) if finding.state == "warning"]
    assert told == [str(one) for one in wanted]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('redis-url = "redis://x"\n', "redis-url: no such setting"),
        ("prefix = 3\n", "prefix: Input should be a valid string"),
        ("prefix\n", "line 1"),
    ],
)
def test_a_file_with_a_mistake_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, words: str
) -> None:
    file = tmp_path / "ward.toml"
    file.write_text(text)
    monkeypatch.setenv("BEDSIDE_CONFIG", str(file))
    with pytest.raises(SettingsError, match=words):
        Settings()
    assert_refused(run("config", "show"), words)


def test_a_file_that_is_named_has_to_be_there() -> None:
    assert_refused(run("config", "show", BEDSIDE_CONFIG="/nowhere/ward.toml"), "/nowhere/ward.toml")
    assert_refused(run("alerts", BEDSIDE_SECRETS="/nowhere"), "/nowhere")


def test_the_broker_url_carries_the_prefix() -> None:
    assert (
        broker_with_prefix("unix:///run/s.sock?db=1", "bedside:") == "unix:///run/s.sock?db=1&prefix=bedside:"
    )
    assert broker_with_prefix("redis://h:1/0?prefix=x", "y:") == "redis://h:1/0?prefix=y:"
    with pytest.raises(BrokerError, match="amqp"):
        broker_with_prefix("amqp://localhost", "bedside:")

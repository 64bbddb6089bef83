"""Settings, and the broker URL made from them."""

from __future__ import annotations

import pytest

from stream.settings import BrokerError, Settings, broker_with_prefix


def test_the_environment_sets_what_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().prefix == "bedside:"
    monkeypatch.setenv("BEDSIDE_PREFIX", "ward-3:")
    monkeypatch.setenv("BEDSIDE_REDIS_URL", "redis://here")
    settings = Settings()
    assert (settings.prefix, settings.redis_url, settings.model) == ("ward-3:", "redis://here", "cae-100hz")


def test_the_broker_url_carries_the_prefix() -> None:
    assert (
        broker_with_prefix("unix:///run/s.sock?db=1", "bedside:") == "unix:///run/s.sock?db=1&prefix=bedside:"
    )
    assert broker_with_prefix("redis://h:1/0?prefix=x", "y:") == "redis://h:1/0?prefix=y:"
    with pytest.raises(BrokerError, match="kafka"):
        broker_with_prefix("kafka://localhost", "bedside:")

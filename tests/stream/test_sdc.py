"""What a consumer and a provider of SDC share."""

from __future__ import annotations

import socket
import uuid
from typing import Any
from urllib.parse import urlsplit

import pytest

from stream.sdc import stop_provider
from tests.ingest.live.sdc.provider import Monitor


def _unsubscribe_under_way(device: Monitor, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    # So many times a subscription is taken away while the library walks through them.
    (manager, *_) = device.provider._subscriptions_managers.values()
    end_all, left = manager._end_all_subscriptions, [None] * times

    def interrupted(*arguments: Any) -> None:
        if left:
            left.pop()
            raise RuntimeError("Set changed size during iteration")
        end_all(*arguments)

    monkeypatch.setattr(manager, "_end_all_subscriptions", interrupted)


def _listens(device: Monitor) -> bool:
    (address,) = {url.geturl() for url in device.provider.base_urls}
    parts = urlsplit(address)
    with socket.socket() as one:
        return one.connect_ex((parts.hostname, parts.port)) == 0


@pytest.mark.parametrize("times", [0, 1, 3])
def test_a_provider_stops_while_its_consumers_unsubscribe(
    monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    device = Monitor(uuid.uuid4().int, {})
    assert _listens(device)
    _unsubscribe_under_way(device, monkeypatch, times)
    stop_provider(device.provider)
    assert not _listens(device)
    device.discovery.stop()


def test_one_that_does_not_stop_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Monitor(uuid.uuid4().int, {})
    with monkeypatch.context() as patched:
        _unsubscribe_under_way(device, patched, 1_000)
        with pytest.raises(RuntimeError, match="changed size"):
            stop_provider(device.provider)
    device.stop()

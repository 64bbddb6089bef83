"""What a result says of the load that it was measured under."""

from __future__ import annotations

from bench.trial import Load


def test_recordings_are_named_without_where_they_lie() -> None:
    load = Load(16, 60.0, paths=("/home/me/data/mitdb/100", "207"), speed=30.0)
    assert load.described()["signal"] == ["mitdb/100", "207"]
    assert load.described()["ill_every_s"] is None
    assert Load(16, 60.0).described()["signal"] == "simulated"

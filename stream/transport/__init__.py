"""Faust on Redis Streams: a transport for faust-streaming, registered for ``redis://`` broker URLs.

Nothing here knows of ECGs or imports other packages of ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stream.transport.transport import Transport

__all__ = ["Transport"]


def __getattr__(name: str) -> Any:
    # Programs that only need `stream.transport.layout` should not wait for Faust to be imported.
    if name == "Transport":
        from stream.transport.transport import Transport

        return Transport
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

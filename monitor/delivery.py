"""Whether a browser keeps up with what it is sent."""

from __future__ import annotations

from collections import deque

# A browser says at least once a second what it has taken. One that has not for longer cannot keep up: what
# it is sent would pile up on the way to it, and it would show the past.
_SLOW_NS = 2_000_000_000


class Delivery:
    """What is on its way to a browser that says what it has taken.

    One that has fallen behind is to be sent nothing until it has taken all that is on its way, and then
    what is live.
    """

    def __init__(self) -> None:
        # Number, and when it was sent.
        self._on_the_way: deque[tuple[int, int]] = deque()
        self._behind = False

    def send(self, number: int, now_ns: int) -> None:
        """Take note of what is sent; numbers rise."""
        self._on_the_way.append((number, now_ns))

    def take(self, number: int) -> None:
        """Take note that the browser has taken everything up to a number."""
        while self._on_the_way and self._on_the_way[0][0] <= number:
            self._on_the_way.popleft()

    def is_behind(self, now_ns: int) -> bool:
        """Say whether nothing is to be sent now."""
        if not self._on_the_way:
            self._behind = False
        elif now_ns - self._on_the_way[0][1] > _SLOW_NS:
            self._behind = True
        return self._behind

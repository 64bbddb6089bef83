"""MLLP, the framing of HL7 messages on a byte stream: VT, the message, FS, CR."""

from __future__ import annotations

_START, _END = b"\x0b", b"\x1c\r"

MAX_BLOCK = 2**20
"""Bytes in a message: ten seconds of 12 leads at 500 Hz take half of it. To read one takes 0.3 s at worst."""


class Deframer:
    """Finds the messages in what arrives, in pieces of any size.

    What stands between messages is skipped, and so is a message that is too long: memory stays below twice
    `MAX_BLOCK`, plus what is fed at once.

    Attributes
    ----------
    skipped : int
        Bytes between messages, line ends aside.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._inside = False
        self._searched = 0
        self._too_long = False
        self.skipped = 0

    @property
    def waiting(self) -> bool:
        """Whether the end of a message is due."""
        return self._inside

    def feed(self, data: bytes) -> list[bytes | None]:
        """Take what came; return the messages that are complete now, None for one that was too long."""
        self._buffer += data
        found: list[bytes | None] = []
        while True:
            if not self._inside:
                start = self._buffer.find(_START)
                between = self._buffer if start < 0 else self._buffer[:start]
                self.skipped += len(between.strip(b"\r\n"))
                if start < 0:
                    self._buffer.clear()
                    return found
                del self._buffer[: start + 1]
                self._inside, self._searched = True, 0
            end = self._buffer.find(_END, self._searched)
            if end < 0:
                # The two bytes of an end may come apart.
                self._searched = max(0, len(self._buffer) - 1)
                if len(self._buffer) > MAX_BLOCK:
                    self._too_long = True
                    del self._buffer[:-1]
                    self._searched = 0
                return found
            # A start inside: the sender broke off, and began again.
            start = self._buffer.rfind(_START, 0, end) + 1
            too_long = (self._too_long and not start) or end - start > MAX_BLOCK
            found.append(None if too_long else bytes(self._buffer[start:end]))
            del self._buffer[: end + len(_END)]
            self._inside = self._too_long = False


def frame(message: bytes) -> bytes:
    """Return a message as it goes on the stream."""
    return _START + message + _END

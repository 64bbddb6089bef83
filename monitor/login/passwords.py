"""Passwords as they are kept: hashed with scrypt, each with a salt of its own."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import re
import unicodedata

# One of the settings of equal strength in OWASP's Password Storage Cheat Sheet: 32 MiB for each guess. Those
# with more memory would be felt on a small machine beside the streams.
_LOG_N, _R, _P = 15, 8, 3
_SALT_BYTES, _HASH_BYTES = 16, 32

SHORTEST = 12
"""Characters; what OWASP's verification standard (ASVS 4.0, 2.1.1) asks of a password that stands alone."""
LONGEST = 128
"""Characters; the same standard's upper bound."""

_STORED = re.compile(r"scrypt\$ln=(\d+),r=(\d+),p=(\d+)\$([0-9a-f]+)\$([0-9a-f]+)", re.ASCII)


class PasswordError(ValueError):
    """A password that is too short or too long; the text says so."""


def hashed(password: str) -> str:
    """Return what is kept of a password.

    Raises
    ------
    PasswordError
    """
    if not SHORTEST <= len(password) <= LONGEST:
        raise PasswordError(f"a password has {SHORTEST} to {LONGEST} characters, not {len(password)}")
    salt = os.urandom(_SALT_BYTES)
    key = _scrypt(password, salt, _LOG_N, _R, _P)
    return f"scrypt$ln={_LOG_N},r={_R},p={_P}${salt.hex()}${key.hex()}"


def matches(password: str, stored: str | None) -> bool:
    """Say whether a password is the one that was hashed; takes as long if there is none.

    Parameters
    ----------
    password : str
    stored : str or None
        As `hashed` returned it. None for a user who does not exist or has no password: False, as late.
    """
    # What is longer than any password is not worth the work.
    found = _STORED.fullmatch(stored or "") if len(password) <= LONGEST else None
    if found is None:
        _scrypt(password[:LONGEST], b"\0" * _SALT_BYTES, _LOG_N, _R, _P)
        return False
    log_n, r, p = (int(number) for number in found.groups()[:3])
    salt, key = (bytes.fromhex(text) for text in found.groups()[3:])
    return hmac.compare_digest(_scrypt(password, salt, log_n, r, p), key)


class BusyError(RuntimeError):
    """Too many passwords to check at once."""


class Passwords:
    """Checks passwords beside the event loop, one at a time: whoever sends many waits for his own."""

    # What a ward sends at the change of shifts; at a tenth of a second or more each, not long to wait.
    _WAITING_MOST = 16

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def matches(self, password: str, stored: str | None) -> bool:
        """Do as `matches` does.

        Raises
        ------
        BusyError
        """
        if self._waiting >= self._WAITING_MOST:
            raise BusyError("many sign in just now: try again")
        self._waiting += 1
        try:
            async with self._turn:
                # It lets go of the interpreter, so that pages go on.
                return await asyncio.to_thread(matches, password, stored)
        finally:
            self._waiting -= 1


def _scrypt(password: str, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    # Composed alike whatever keyboard it came from (NIST SP 800-63B).
    secret = unicodedata.normalize("NFKC", password).encode()
    needed = 128 * r * ((1 << log_n) + p)
    # OpenSSL counts a little more.
    return hashlib.scrypt(
        secret, salt=salt, n=1 << log_n, r=r, p=p, maxmem=needed + (1 << 20), dklen=_HASH_BYTES
    )

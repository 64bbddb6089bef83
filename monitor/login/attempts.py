"""How often one may try to sign in: after some failures each further attempt has to wait, ever longer."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

from stream.clock import Clock

_S = 1_000_000_000
# Somebody who has forgotten a password tries a few; behind one address may sit a whole ward.
_FREE_USER, _FREE_ADDRESS = 5, 20
# Long enough that guessing leads nowhere: 1440 guesses a day. Short enough that whoever is kept out by
# somebody else's guesses still gets in.
_LONGEST_S = 60
_FORGOTTEN_S = 15 * 60
_REMEMBERED = 10_000


@dataclass(slots=True)
class _Failures:
    count: int
    last_ns: int


class Attempts:
    """Failed attempts, by user and by address.

    Parameters
    ----------
    clock : Clock
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: OrderedDict[tuple[str, str], _Failures] = OrderedDict()

    def wait_s(self, user: str, address: str) -> int:
        """Return how long to wait before the next attempt, whole seconds; 0 if it may be made now."""
        now_ns = self._clock.now_ns()
        waits_ns = [0]
        for key, free in _keys(user, address):
            failures = self._failures.get(key)
            if failures is not None and failures.count >= free:
                wait_s = min(2 ** min(failures.count - free, 16), _LONGEST_S)
                waits_ns.append(failures.last_ns + wait_s * _S - now_ns)
        return -(-max(waits_ns) // _S)

    def begin(self, user: str, address: str) -> None:
        """Count an attempt as failed until `succeed` says otherwise: several at once gain nothing."""
        now_ns = self._clock.now_ns()
        for key, _ in _keys(user, address):
            failures = self._failures.pop(key, None)
            if failures is None or now_ns - failures.last_ns > _FORGOTTEN_S * _S:
                failures = _Failures(0, now_ns)
            self._failures[key] = _Failures(failures.count + 1, now_ns)
        while len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)

    def succeed(self, user: str, address: str) -> None:
        """Say that the attempt just begun was none: the user is known. Other users' failures stay."""
        (of_user, _), (of_address, _) = _keys(user, address)
        self._failures.pop(of_user, None)
        if of_address in self._failures:
            self._failures[of_address].count -= 1


def _keys(user: str, address: str) -> tuple[tuple[tuple[str, str], int], tuple[tuple[str, str], int]]:
    return (("user", user), _FREE_USER), (("address", _network(address)), _FREE_ADDRESS)


def _network(address: str) -> str:
    # One machine has as many IPv6 addresses as it likes, all in one network of 64 bits.
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)

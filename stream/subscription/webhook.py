"""Forwarding alarms to a web address: every transition, in order, until it has been taken.

Each transition is one POST of the JSON that a subscriber gets. A delivery is repeated until the receiver
answers with 2xx, and nothing is sent before what comes earlier has been taken; after a stated time it is
given up and kept as a dead letter. How far a hook has come is kept in Redis under its name, so that a restart
goes on there. A process that dies between delivery and writing that down delivers once more: receivers drop
what they have seen by the header ``Bedside-Event``.

With a secret, ``Bedside-Signature`` is ``v1=`` and the HMAC-SHA256, in hexadecimal, of the header
``Bedside-Timestamp``, a dot, and the body.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import json
import logging
import random
import re
import socket
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from prometheus_client import Counter, Gauge
from redis.exceptions import RedisError

from stream.bus import Bus, heed_cancellation, until_answered
from stream.clock import Clock, SystemClock
from stream.console import RefusalError
from stream.side_by_side import until_one_ends
from stream.subscription.follow import SILENT_AFTER_S, Alarm, Subscription, Wanted
from stream.topics import DEFAULT_PREFIX, WEBHOOK_DEAD_LETTERS

log = logging.getLogger(__name__)

GIVE_UP_S = 24 * 3600.0
"""For how long one delivery is repeated: a receiver that is down for the night misses nothing."""

DELIVERIES = Counter("bedside_webhook_deliveries", "Attempts to deliver, by outcome", ["outcome"])
BEHIND = Gauge("bedside_webhook_behind_seconds", "For how long the delivery at hand has been repeated")

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_TIMEOUT_S = 10.0
_BACKOFF_S = 1.0
# An hour's outage costs sixty attempts, and ends a minute late at most.
_BACKOFF_MAX_S = 60.0
_RETRY_S = 1.0
# A forwarder that was killed leaves its lease behind for so long; another waits that much and a little more.
_LEASE_MS = 10_000
_RENEW_S = 3.0
# Addresses of IPv4 hosts behind a translator (RFC 6052): what counts is the address inside.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

# KEYS: lease; ARGV: owner, time (ms). Returns 1 if it is ours.
_RENEW = """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"


class HookError(RefusalError):
    """A hook that cannot be served; the text says why, in one line."""


class _PrivateAddressError(OSError):
    """An address that is refused."""


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """Return what ``Bedside-Signature`` must be."""
    return "v1=" + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def is_public(address: str) -> bool:
    """Say whether an IP address is one of the open internet, not of this machine, link or network."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


class _CheckedResolver(AbstractResolver):
    # Its answers are what is connected to: a name cannot lead elsewhere between check and use.
    def __init__(self) -> None:
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        public = [one for one in found if is_public(one["host"])]
        if found and not public:
            raise _PrivateAddressError(f"{host} is a private address ({found[0]['host']})")
        return public

    async def close(self) -> None:
        await self._resolver.close()


@dataclass(frozen=True)
class Hook:
    """Where to forward what.

    Attributes
    ----------
    url : str
        ``https://`` or ``http://``.
    name : str, optional
        Under which its position is kept; by default made from the URL.
    secret : bytes, optional
    wanted : Wanted
    allow_private : bool
        Also to private, link-local and loopback addresses.
    give_up_s : float

    Raises
    ------
    HookError
        If it cannot be.
    """

    url: str
    name: str = ""
    secret: bytes | None = None
    wanted: Wanted = field(default_factory=Wanted)
    allow_private: bool = False
    give_up_s: float = GIVE_UP_S

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            host = parts.hostname or ""
            _ = parts.port
        except ValueError as error:
            raise HookError(f"{self.url}: {error}") from None
        if parts.scheme not in ("http", "https") or not host:
            raise HookError(f"{self.url}: give an address with https:// or http://")
        if parts.username is not None or parts.password is not None:
            raise HookError(
                f"{parts.hostname}: no user and password in the address; sign with a secret instead"
            )
        if not self.name:
            digest = hashlib.sha256(self.url.encode()).hexdigest()[:8]
            object.__setattr__(self, "name", f"{re.sub('[^A-Za-z0-9.-]', '-', host)[:50]}-{digest}")
        if not _NAME.fullmatch(self.name):
            raise HookError(f"name {self.name!r}: use letters, digits, '.', '_' and '-', at most 64")
        if self.secret is not None and len(self.secret) < 16:
            raise HookError("the secret is too short: use 16 bytes or more")
        with suppress(ValueError):
            if not self.allow_private and not is_public(host):
                raise HookError(f"{host} is a private address: allow it with --allow-private")


class Forwarder:
    """Forwards to one hook.

    Parameters
    ----------
    redis_url : str
        Server of the streams.
    hook : Hook
    prefix : str
    clock : Clock, optional
    jitter : random.Random, optional
    silent_after_s : float, optional
        When to forward that no worker is heard of; None for never. See `stream.subscription.follow.alarms`.
    """

    def __init__(
        self,
        redis_url: str,
        hook: Hook,
        *,
        prefix: str = DEFAULT_PREFIX,
        clock: Clock | None = None,
        jitter: random.Random | None = None,
        silent_after_s: float | None = SILENT_AFTER_S,
    ) -> None:
        self._redis_url = redis_url
        self._hook = hook
        self._prefix = prefix
        self._clock = clock or SystemClock()
        self._jitter = jitter or random.Random()
        self._silent_after_s = silent_after_s
        self._key = f"{prefix}webhook:{hook.name}"
        self._owner = uuid.uuid4().hex

    async def run(self, since: str | datetime | None = None) -> None:
        """Forward for ever.

        Parameters
        ----------
        since : str or datetime, optional
            Where a hook begins that has never run; by default with the next transition.

        Raises
        ------
        HookError
            If another forwarder serves the hook, or its address is refused.
        stream.bus.BusUnavailableError
            If the server of the streams cannot be used at the beginning.
        """
        await self._check_target()
        async with await Bus.connect(self._redis_url, prefix=self._prefix, clock=self._clock) as bus:
            await self._take_lease(bus)
            try:
                await until_one_ends(self._forward(bus, since), self._renew(bus))
            finally:
                with suppress(RedisError, OSError):
                    await bus.client.eval(_RELEASE, 1, f"{self._key}:lease", self._owner)

    async def _check_target(self) -> None:
        if self._hook.allow_private:
            return
        host = urlsplit(self._hook.url).hostname or ""
        resolver = _CheckedResolver()
        try:
            await resolver.resolve(host)
        except _PrivateAddressError as error:
            raise HookError(f"{error}: allow it with --allow-private") from None
        except OSError as error:
            # It may be known later.
            log.warning("webhook %s: %s", self._hook.name, error)
        finally:
            await resolver.close()

    # -- one forwarder a hook

    async def _take_lease(self, bus: Bus) -> None:
        for _ in range(round(_LEASE_MS / 1000 / _RETRY_S) + 2):
            if await self._has_lease(bus):
                return
            await asyncio.sleep(_RETRY_S)
        raise HookError(f"another process serves webhook {self._hook.name}: give this one another --name")

    async def _has_lease(self, bus: Bus) -> bool:
        return bool(await bus.client.eval(_RENEW, 1, f"{self._key}:lease", self._owner, str(_LEASE_MS)))

    async def _renew(self, bus: Bus) -> None:
        while True:
            heed_cancellation()
            await asyncio.sleep(_RENEW_S)
            with suppress(RedisError, OSError):
                if not await self._has_lease(bus):
                    raise HookError(f"another process has taken over webhook {self._hook.name}")

    # -- forwarding

    async def _forward(self, bus: Bus, since: str | datetime | None) -> None:
        state: Any = await bus.client.hgetall(self._key)
        position = state[b"position"].decode() if b"position" in state else None
        subscription = await Subscription.open(
            self._redis_url,
            prefix=self._prefix,
            since=position or since,
            wanted=self._hook.wanted,
            silent_after_s=self._silent_after_s,
            clock=self._clock,
        )
        options: dict[str, Any] = {} if self._hook.allow_private else {"resolver": _CheckedResolver()}
        connector = aiohttp.TCPConnector(use_dns_cache=False, **options)
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with subscription, aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
            await self._note(bus, {"position": subscription.position})
            while True:
                noted = subscription.position
                for event in await subscription.next():
                    await self._deliver(bus, http, event)
                    await self._note(bus, {"position": event.position})
                if subscription.position != noted:
                    await self._note(bus, {"position": subscription.position})

    async def _deliver(self, bus: Bus, http: aiohttp.ClientSession, event: Alarm) -> None:
        body = event.model_dump_json().encode()
        began_ns: int | None = None
        attempt = 0
        while True:
            heed_cancellation()
            why = await self._post(http, event, body)
            attempt += 1
            if why is None:
                DELIVERIES.labels("delivered").inc()
                BEHIND.set(0)
                if attempt > 1:
                    log.warning("webhook %s takes alarms again", self._hook.name)
                return
            DELIVERIES.labels("failed").inc()
            if began_ns is None:
                log.warning("webhook %s does not take %s: %s", self._hook.name, event.event, why)
                began_ns = await self._failing_since(bus, event)
            failing_s = (self._clock.now_ns() - began_ns) / 1e9
            BEHIND.set(failing_s)
            if failing_s >= self._hook.give_up_s:
                await self._give_up(bus, event, why, began_ns)
                return
            pause_s = min(_BACKOFF_MAX_S, _BACKOFF_S * 2 ** min(attempt - 1, 10))
            pause_s *= self._jitter.uniform(0.5, 1.0)
            await self._clock.sleep_until(self._clock.now_ns() + round(pause_s * 1e9))

    async def _post(self, http: aiohttp.ClientSession, event: Alarm, body: bytes) -> str | None:
        # None if it was taken, else why not.
        timestamp = str(self._clock.now_ns() // 1_000_000_000)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "bedside",
            "Bedside-Event": event.event,
            "Bedside-Timestamp": timestamp,
        }
        if self._hook.secret is not None:
            headers["Bedside-Signature"] = signature(self._hook.secret, timestamp, body)
        try:
            # Not where a redirection leads: that address was not looked at, and POST would become GET.
            request = http.post(self._hook.url, data=body, headers=headers, allow_redirects=False)
            async with request as answer:
                return None if 200 <= answer.status < 300 else f"status {answer.status}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return str(error) or type(error).__name__

    async def _failing_since(self, bus: Bus, event: Alarm) -> int:
        # Also across restarts of this process.
        now_ns = self._clock.now_ns()
        with suppress(RedisError, OSError):
            state: Any = await bus.client.hgetall(self._key)
            if state.get(b"failing") == event.event.encode():
                return int(state[b"failing_since"])
        await self._note(bus, {"failing": event.event, "failing_since": str(now_ns)})
        return now_ns

    async def _give_up(self, bus: Bus, event: Alarm, why: str, began_ns: int) -> None:
        DELIVERIES.labels("dead").inc()
        log.error("webhook %s: gave up %s after %s", self._hook.name, event.event, why)
        letter = {
            "hook": self._hook.name,
            "why": why,
            "since": began_ns,
            "at": self._clock.now_ns(),
            "event": event.model_dump(mode="json"),
        }
        name, value = self._hook.name.encode(), json.dumps(letter).encode()
        await until_answered(
            f"webhook {self._hook.name}: cannot keep a dead letter",
            lambda: bus.publish(WEBHOOK_DEAD_LETTERS, name, value),
        )

    async def _note(self, bus: Bus, fields: dict[Any, Any]) -> None:
        await until_answered(
            f"webhook {self._hook.name}: cannot write down how far it is",
            lambda: bus.client.hset(self._key, mapping=fields),
        )

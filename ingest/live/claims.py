"""Who feeds a bed: one device at a time, whichever adapter it comes through.

The keys ``<prefix>ingest:bed:<bed>`` name the feed and the device that has the bed, and expire when it falls
silent. Replay and the simulator ask nobody: they are for beds that no device feeds.
"""

from __future__ import annotations

from collections.abc import Iterable

import redis.asyncio as redis

CLAIM_S = 10.0
"""A device that has been silent for so long, long after its feed was called lost, gives way to another."""

# KEYS: the claim; ARGV: who, time to live (ms). Returns who has it, if it is another.
_ASK = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return holder end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return false
"""
_LEAVE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"


class Claims:
    """The claims of one adapter.

    Parameters
    ----------
    client : redis.asyncio.Redis
    prefix : str
        Start of every key of the deployment.
    name : str
        Of the feed.
    """

    def __init__(self, client: redis.Redis, prefix: str, name: str) -> None:
        self._client, self._prefix, self._name = client, prefix, name
        self._ask, self._leave = client.register_script(_ASK), client.register_script(_LEAVE)

    async def ask(self, beds: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
        """Claim beds for devices, or keep them.

        Parameters
        ----------
        beds : iterable of (bed, device)

        Returns
        -------
        dict of (bed, device) to str
            Who has the bed, in words, for each that is refused.
        """
        asked = list(beds)
        async with self._client.pipeline(transaction=False) as pipeline:
            for bed, device in asked:
                args: list[str | int] = [self._who(device), round(CLAIM_S * 1000)]
                await self._ask(keys=[self._key(bed)], args=args, client=pipeline)
            answers = await pipeline.execute()
        return {
            claim: answer.decode(errors="replace")
            for claim, answer in zip(asked, answers, strict=True)
            if answer is not None
        }

    async def leave(self, beds: Iterable[tuple[str, str]]) -> None:
        """Leave beds to whoever comes."""
        async with self._client.pipeline(transaction=False) as pipeline:
            for bed, device in beds:
                await self._leave(keys=[self._key(bed)], args=[self._who(device)], client=pipeline)
            await pipeline.execute()

    def _key(self, bed: str) -> str:
        return f"{self._prefix}ingest:bed:{bed}"

    def _who(self, device: str) -> str:
        return f"{device} ({self._name})"

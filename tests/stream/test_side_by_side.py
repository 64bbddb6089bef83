"""Work side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from stream.side_by_side import until_one_ends


def beside(other: Coroutine[Any, Any, Any]) -> list[str]:
    """Run something beside what never ends by itself; return what became of that."""
    log: list[str] = []

    async def for_ever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            log.append("ended")

    async def main() -> None:
        try:
            await until_one_ends(for_ever(), other)
        finally:
            log.append("over")

    try:
        asyncio.run(main())
    except ZeroDivisionError:
        log.append("raised")
    return log


def test_the_others_have_ended_once_the_first_has() -> None:
    assert beside(asyncio.sleep(0)) == ["ended", "over"]


def test_what_made_one_fail_is_raised() -> None:
    async def fails() -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    assert beside(fails()) == ["ended", "over", "raised"]


def test_who_waits_may_be_cancelled() -> None:
    async def main() -> list[bool]:
        ended: list[bool] = []

        async def for_ever() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(True)

        waiting = asyncio.create_task(until_one_ends(for_ever(), for_ever()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return ended

    assert asyncio.run(main()) == [True, True]

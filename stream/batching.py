"""Micro-batches: windows of many beds wait a little for each other."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class MicroBatch(Generic[T]):
    """What waits for the model.

    A batch is due when it is full or when its oldest item has waited for `budget_ns`; time is handed in.
    Beds take turns, in the order in which they came to wait: one with a backlog, as after an outage, holds
    up no other. The items of a bed keep their order.

    Parameters
    ----------
    size : int
        Most items in one batch.
    budget_ns : int
        Longest wait of an item for others.
    """

    def __init__(self, size: int, budget_ns: int) -> None:
        self._size = size
        self._budget_ns = budget_ns
        self._waiting: dict[str, deque[tuple[int, T]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, bed: str, item: T, now_ns: int) -> None:
        self._waiting.setdefault(bed, deque()).append((now_ns, item))
        self._count += 1

    def due_ns(self) -> int | None:
        """Return the time at which a batch is due (0: at once), or None if nothing waits."""
        if self._count >= self._size:
            return 0
        oldest_ns = min((items[0][0] for items in self._waiting.values()), default=None)
        return None if oldest_ns is None else oldest_ns + self._budget_ns

    def take(self) -> list[T]:
        """Return and remove the next batch."""
        batch: list[T] = []
        while self._waiting and len(batch) < self._size:
            bed, items = next(iter(self._waiting.items()))
            batch.append(items.popleft()[1])
            del self._waiting[bed]
            if items:
                # To the end of the line.
                self._waiting[bed] = items
        self._count -= len(batch)
        return batch

    def drop(self, bed: str) -> None:
        """Forget what waits of a bed."""
        self._count -= len(self._waiting.pop(bed, ()))

"""Micro-batches: windows of many beds wait a little for each other."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class MicroBatch(Generic[T]):
    """What waits for the model, oldest first.

    A batch is due when it is full or its oldest item has waited `budget_ns`; time is handed in.

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
        self._waiting: deque[tuple[int, T]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, item: T, now_ns: int) -> None:
        self._waiting.append((now_ns, item))

    def due_ns(self) -> int | None:
        """Return the time at which a batch is due (0: at once), or None if nothing waits."""
        if not self._waiting:
            return None
        if len(self._waiting) >= self._size:
            return 0
        return self._waiting[0][0] + self._budget_ns

    def take(self) -> list[T]:
        """Return and remove the next batch, in order of arrival, so that no bed overtakes itself."""
        count = min(self._size, len(self._waiting))
        return [self._waiting.popleft()[1] for _ in range(count)]

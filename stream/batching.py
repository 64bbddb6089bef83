"""Micro-batches: windows of many beds wait a little for each other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")

_Waiting = dict[str, deque[tuple[int, T]]]


class MicroBatch(Generic[T]):
    """What waits for a model.

    A batch is due when it is full or when its oldest item has waited for `budget_ns`; time is handed in.
    Beds take turns, in the order in which they came to wait: one with a backlog, as after an outage, holds
    up no other. The items of a bed keep their order. A batch is of one kind, that of the bed whose turn it
    is; beds of other kinds keep their places in the line.

    Parameters
    ----------
    size : int
        Most items in one batch.
    budget_ns : int
        Longest wait of an item for others.
    kind : callable
        Returns what the items of a bed must have in common with the others of their batch.
    """

    def __init__(self, size: int, budget_ns: int, kind: Callable[[str], Hashable]) -> None:
        self._size = size
        self._budget_ns = budget_ns
        self._kind = kind
        self._waiting: _Waiting[T] = {}
        self._held: _Waiting[T] = {}
        self._count = self._count_held = 0

    def __len__(self) -> int:
        return self._count + self._count_held

    @property
    def held(self) -> list[str]:
        """The beds that are held back."""
        return list(self._held)

    def add(self, bed: str, item: T, now_ns: int) -> None:
        if bed in self._held:
            self._held[bed].append((now_ns, item))
            self._count_held += 1
        else:
            self._waiting.setdefault(bed, deque()).append((now_ns, item))
            self._count += 1

    def hold(self, bed: str) -> None:
        """Take nothing of a bed into a batch until it is released."""
        items = self._held.setdefault(bed, deque())
        moved = self._waiting.pop(bed, deque())
        items += moved
        self._count -= len(moved)
        self._count_held += len(moved)

    def release(self, bed: str) -> None:
        """Let a bed that was held back go on, at the end of the line."""
        items = self._held.pop(bed)
        self._count_held -= len(items)
        self._count += len(items)
        if items:
            self._waiting[bed] = items

    def due_ns(self) -> int | None:
        """Return the time at which a batch is due (0: at once), or None if nothing waits."""
        if self._count >= self._size:
            return 0
        oldest_ns = min((items[0][0] for items in self._waiting.values()), default=None)
        return None if oldest_ns is None else oldest_ns + self._budget_ns

    def take(self) -> list[T]:
        """Return and remove the next batch."""
        batch: list[T] = []
        kind: Hashable = None
        others: _Waiting[T] = {}
        while self._waiting and len(batch) < self._size:
            bed, items = next(iter(self._waiting.items()))
            del self._waiting[bed]
            if not batch:
                kind = self._kind(bed)
            elif self._kind(bed) != kind:
                others[bed] = items
                continue
            batch.append(items.popleft()[1])
            if items:
                # To the end of the line.
                self._waiting[bed] = items
        if others:
            self._waiting = others | self._waiting
        self._count -= len(batch)
        return batch

    def drop(self, bed: str) -> None:
        """Forget what waits of a bed."""
        self._count -= len(self._waiting.pop(bed, ()))
        self._count_held -= len(self._held.pop(bed, ()))

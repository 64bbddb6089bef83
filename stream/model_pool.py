"""The models that a worker holds: its own, and those that were chosen for beds.

A model is loaded when the first bed needs it, in a thread of its own, with the proof that it computes what
was trained, and is let go when no bed needs it any more. Loading one of the shipped models takes a tenth of a
second of a processor, holds the event loop for less than ten milliseconds, and takes some ten megabytes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from models.backends import open_session
from models.backends.batched import one_line
from models.bundle import BundleError, list_bundles, load_bundle
from models.manifest import Manifest
from models.session import Session
from stream import metrics
from stream.alarms.criteria import Criteria

log = logging.getLogger(__name__)

MOST = 4
"""Models that a worker holds at the most: one of a user's own and the three that are shipped."""


class ModelUnavailableError(ValueError):
    """A model that cannot judge a bed here; the text says why, in one line."""


class ModelPool:
    """Loads and holds models.

    Parameters
    ----------
    own : Session
        The worker's own model, which is always there. Others run on its backend and in its precision.
    most : int
        Models that are held at the same time.
    """

    def __init__(self, own: Session, *, most: int = MOST) -> None:
        self.own = own
        self._most = most
        self._sessions: dict[str, Session] = {}
        self.criteria: dict[str, Criteria] = {}
        """By what the scores of the models that are loaded are judged."""
        self._put(own)
        self._loading: dict[str, asyncio.Task[Session]] = {}
        # By model: how many requests need it although no bed does yet.
        self._needed: Counter[str] = Counter()
        # One thread: memory that each of several had once used would not come back.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="load-model")

    def _put(self, session: Session) -> None:
        manifest = session.manifest
        self._sessions[manifest.name] = session
        self.criteria[manifest.name] = Criteria.of(manifest, session.precision)
        metrics.MODELS.set(len(self._sessions))

    def close(self) -> None:
        """Wait for a model that is being loaded."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def get(self, name: str) -> Session | None:
        """Return a model that is loaded."""
        return self._sessions.get(name)

    @asynccontextmanager
    async def holding(self, name: str) -> AsyncIterator[Session]:
        """Load a model if it is not, and keep it at least until the block ends.

        Raises
        ------
        ModelUnavailableError
        """
        self._needed[name] += 1
        try:
            yield await self.load(name)
        finally:
            self._needed[name] -= 1

    async def load(self, name: str) -> Session:
        """Return a model, loaded now if it was not.

        Raises
        ------
        ModelUnavailableError
            If there is no such model, it is refused, its windows are others than those of the worker's own
            model, or too many are loaded.
        """
        if (session := self._sessions.get(name)) is not None:
            return session
        if name not in self._loading:
            if len(self._sessions) + len(self._loading) >= self._most:
                held = ", ".join([*self._sessions, *self._loading])
                raise ModelUnavailableError(f"model {name}: this worker holds {self._most} already ({held})")
            self._loading[name] = asyncio.ensure_future(self._load(name))
        return await asyncio.shield(self._loading[name])

    async def _load(self, name: str) -> Session:
        try:
            session = await asyncio.get_running_loop().run_in_executor(self._executor, self._open, name)
        except BundleError as error:
            raise ModelUnavailableError(one_line(error)) from error
        except Exception as error:
            # Whatever a library says of its device, or of the memory that it would need.
            log.exception("cannot load model %s", name)
            raise ModelUnavailableError(f"model {name!r} cannot be loaded: {one_line(error)}") from error
        finally:
            del self._loading[name]
        self._put(session)
        log.info("loaded model %s", name)
        return session

    def _open(self, name: str) -> Session:
        shipped = list_bundles()
        if name not in shipped:
            # A path would be another file on another worker.
            raise BundleError(f"no model {name!r}: choose from {', '.join(shipped)}")
        bundle = load_bundle(name)
        _check_windows(bundle.manifest, self.own.manifest)
        return open_session(bundle, self.own.backend, self.own.precision)

    def keep(self, names: Collection[str]) -> None:
        """Let go of the models that neither `names` nor a request needs; the worker's own stays."""
        needed = {self.own.manifest.name, *names, *(name for name, n in self._needed.items() if n)}
        for name in self._sessions.keys() - needed:
            del self._sessions[name], self.criteria[name]
            log.info("let go of model %s", name)
        metrics.MODELS.set(len(self._sessions))


def _check_windows(other: Manifest, own: Manifest) -> None:
    for what, values in {
        "leads": (other.leads, own.leads),
        "filter": (other.filter, own.filter),
        "windows": (other.window, own.window),
    }.items():
        if values[0] != values[1]:
            raise BundleError(
                f"model {other.name!r} sees other {what} than this worker's own model, {own.name!r}:"
                " it needs a worker of its own (bedside worker --model)"
            )

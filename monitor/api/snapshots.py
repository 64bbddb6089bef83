"""``GET /api/alarms/ALARM/snapshot.png``, ``.pdf`` and ``.zip``: what an alarm looked like."""

from __future__ import annotations

import asyncio
import io
import tempfile
import zipfile
from collections import OrderedDict
from http import HTTPStatus
from pathlib import Path

from redis.exceptions import RedisError

from monitor.api.access import Access, ApiHandler, RefusedError
from monitor.aside import AsideError, bedside
from stream.contract import is_name
from stream.snapshots.store import SnapshotStore, missing_reason

_TYPES = {"png": "image/png", "pdf": "application/pdf", "zip": "application/zip"}
# Drawing takes some three seconds; a busy machine may need longer.
_PATIENCE_S = 60.0
# A megabyte each: what people look at just now.
_KEPT = 16

Files = dict[str, bytes]


class Drawings:
    """Draws snapshots, each once, one at a time, and keeps the newest.

    Parameters
    ----------
    redis_url, prefix : str
        The deployment.
    """

    def __init__(self, redis_url: str, prefix: str) -> None:
        self._redis_url, self._prefix = redis_url, prefix
        self._turn = asyncio.Lock()
        self._drawn: OrderedDict[str, Files] = OrderedDict()

    async def files(self, alarm: str) -> Files:
        """Return picture, page and record of an alarm that has a snapshot, by suffix.

        Raises
        ------
        RefusedError
            If it cannot be drawn.
        """
        # Whoever waits for the same one finds it done.
        async with self._turn:
            if alarm not in self._drawn:
                self._drawn[alarm] = await self._draw(alarm)
                if len(self._drawn) > _KEPT:
                    self._drawn.popitem(last=False)
            self._drawn.move_to_end(alarm)
            return self._drawn[alarm]

    async def _draw(self, alarm: str) -> Files:
        with tempfile.TemporaryDirectory(prefix="bedside-") as name:
            folder = Path(name)
            png, pdf, record = folder / "alarm.png", folder / "alarm.pdf", folder / "record"
            try:
                done = await bedside(
                    *("alerts", "snapshot", "--png", f"{png}", "--pdf", f"{pdf}", "--wfdb", f"{record}"),
                    # Nothing after it is an option.
                    *("--", alarm),
                    redis_url=self._redis_url,
                    prefix=self._prefix,
                    timeout_s=_PATIENCE_S,
                )
            except AsideError as error:
                raise RefusedError(
                    HTTPStatus.INTERNAL_SERVER_ERROR, f"the snapshot cannot be drawn: {error}"
                ) from error
            if done.code:
                raise RefusedError(HTTPStatus.NOT_FOUND, done.refusal)
            return {"png": png.read_bytes(), "pdf": pdf.read_bytes(), "zip": _zipped(record)}


def _zipped(folder: Path) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    return packed.getvalue()


class SnapshotFile(ApiHandler):
    """Answers with one of the files of a snapshot."""

    def initialize(self, access: Access, drawings: Drawings) -> None:  # type: ignore[override]
        """Take what all handlers share, and who draws."""
        super().initialize(access)
        self._drawings = drawings

    async def get(self, alarm: str, suffix: str) -> None:
        """Answer."""
        access = self.access
        if not is_name(alarm):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "an alarm's id has 1 to 64 characters")
        try:
            # Asked each time: what was deleted is not shown, although it was drawn before.
            if not await SnapshotStore(access.bus).has(alarm):
                raise RefusedError(HTTPStatus.NOT_FOUND, await missing_reason(access.bus, alarm))
        except (RedisError, OSError) as error:
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error
        files = await self._drawings.files(alarm)
        self.set_header("Content-Type", _TYPES[suffix])
        if suffix != "png":
            self.attach(f"alarm-{alarm}.{suffix}")
        self.finish(files[suffix])

"""``/api/history``: recorded beds, their signal at any moment, what a model says of it, exports.

Times are device times in milliseconds since the epoch, with fractions.
"""

from __future__ import annotations

import json
from http import HTTPStatus

import numpy as np
from redis.exceptions import RedisError

from models.bundle import list_bundles
from monitor.api.access import Access, ApiHandler, RefusedError
from monitor.bed.trace import MONITOR_BAND, WIDE_BAND
from monitor.history import archive
from monitor.history.blocks import overlay, places
from monitor.history.comparison import Asked, compare
from monitor.history.export import STRIP_S, ZIP_S, strip, zipped
from monitor.history.room import Room
from monitor.history.sheet import LONGEST_S, Packet, Sheet, draw, lay
from monitor.history.stays import Thresholds, stay_of, thresholds_of
from monitor.limited import LimitedError
from stream.contract import is_name
from stream.settings import Settings

_BANDS = {"monitor": MONITOR_BAND, "wide": WIDE_BAND}
_WIDEST = 4_000
# Of the years in which a device's clock may stand: 1900 to 2200.
_TIMES_MS = -2.3e12, 7.3e12
_TYPES = {"zip": "application/zip", "png": "image/png", "pdf": "application/pdf"}


class _InRoom(ApiHandler):
    def initialize(self, access: Access, room: Room) -> None:  # type: ignore[override]
        super().initialize(access)
        self.room = room

    def bed(self, name: str) -> str:
        if not is_name(name):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "a bed's name has 1 to 64 characters")
        return name

    def number(self, name: str, low: float, high: float, usual: float | None = None) -> float:
        text = self.get_query_argument(name, None)
        if text is None and usual is not None:
            return usual
        try:
            value = float(text or "")
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"{name}: a number from {low:g} to {high:g}")
        return value

    def span(self, longest_s: float) -> tuple[int, int]:
        """Return ``from`` and ``to`` of the query, ns."""
        t0, t1 = (round(self.number(name, *_TIMES_MS) * 1e6) for name in ("from", "to"))
        if not 0 < t1 - t0 <= longest_s * 1e9 * 1.01:
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"from … to: at most {longest_s:g} s")
        return t0, t1

    def model(self, bed: str) -> str:
        """Return the model that judges a bed now, or would."""
        live = self.access.pump.ward.beds.get(bed)
        used = live.finding.model if live is not None and live.finding is not None else ""
        return used if used in list_bundles() else Settings().model

    async def thresholds(self, bed: str, model: str) -> tuple[Thresholds, list[str]]:
        """Return the thresholds that operators set for a bed, and in words if they cannot be known."""
        try:
            entries = await self.room.book.of(self.access.bus, bed)
        except (RedisError, OSError):
            return Thresholds([], []), ["thresholds that were set for the bed: the audit log cannot be read"]
        found = await self.room.read(archive.pieces, self.room.recordings, bed)
        return thresholds_of(entries, found, model), []

    async def sheet(self, bed: str) -> Sheet | None:
        t0 = round(self.number("from", *_TIMES_MS) * 1e6)
        seconds = self.number("seconds", 0.5, LONGEST_S)
        try:
            return await self.room.read(lay, self.room.recordings, bed, t0, seconds)
        except OSError as error:
            raise self.unreadable(error) from error

    def unreadable(self, error: OSError) -> RefusedError:
        """Return what is said of a file that cannot be read."""
        text = str(error).replace(f"{self.room.recordings.root}/", "")
        return RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, f"the recording is damaged: {text}")

    def send(self, packet: Packet) -> None:
        """Send plain values as a line of JSON, and arrays behind it, each from an even place on."""
        arrays = {name: value for name, value in packet.items() if isinstance(value, np.ndarray)}
        plain = {name: value for name, value in packet.items() if name not in arrays}
        at, placed = 0, []
        for name, array in arrays.items():
            placed.append({"name": name, "kind": array.dtype.name, "at": at, "length": array.size})
            at += -(-array.nbytes // 4) * 4
        head = json.dumps(plain | {"arrays": placed}).encode()
        head += b" " * (-(len(head) + 1) % 4) + b"\n"
        self.set_header("Content-Type", "application/octet-stream")
        self.write(head)
        for array in arrays.values():
            raw = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
            self.write(raw + b"\0" * (-len(raw) % 4))
        self.finish()


class BedList(_InRoom):
    """``GET /api/history``: the recorded beds, and where recordings are looked for."""

    async def get(self) -> None:
        """Answer."""
        room = self.room
        found = await room.read(archive.beds, room.recordings)
        self.answer({"beds": found, "folder": str(room.recordings.root)})


class Overview(_InRoom):
    """``GET /api/history/BED``: what is recorded, and the alarms; see `monitor.history.archive.overview`.

    Who asks again says which alarms are ``known``: ``alarms`` is null if ``told`` is still that.
    """

    async def get(self, bed: str) -> None:
        """Answer."""
        now_ns = self.access.clock.now_ns()
        found = await self.room.read(archive.overview, self.room.recordings, self.bed(bed), now_ns)
        if found is None:
            raise RefusedError(HTTPStatus.NOT_FOUND, f"nothing is recorded of {bed}")
        if self.get_query_argument("known", None) == found["told"]:
            found["alarms"] = None
        self.answer(found)


class Envelope(_InRoom):
    """``GET /api/history/BED/envelope?from&to&lead&width``: ``low`` and ``high`` of a lead, microvolts."""

    async def get(self, bed: str) -> None:
        """Answer."""
        t0, t1 = self.span(archive.ENVELOPE_S)
        width = int(self.number("width", 1, _WIDEST))
        lead = self.get_query_argument("lead")
        room = self.room
        try:
            low, high = await room.read(archive.envelope, room.recordings, self.bed(bed), t0, t1, lead, width)
        except OSError as error:
            raise self.unreadable(error) from error
        self.answer({"low": low, "high": high})


class Signal(_InRoom):
    """``GET /api/history/BED/signal?from&seconds&band``: a sheet's signal, filtered as in the bed view.

    Arrays behind a line of JSON, as `monitor.bed.sweep.Sweep.news` has them: all samples, or the lowest and
    the highest of each few, 250 a second at most. Nothing but ``leads``, empty, where nothing is recorded.
    """

    async def get(self, bed: str) -> None:
        """Answer."""
        band = _BANDS.get(self.get_query_argument("band", "monitor"))
        if band is None:
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"band: one of {', '.join(_BANDS)}")
        sheet = await self.sheet(self.bed(bed))
        self.send({"leads": []} if sheet is None else await self.room.read(draw, sheet, band))


class Findings(_InRoom):
    """``GET /api/history/BED/findings?from&seconds``: what the model says of a sheet, as `Signal`.

    ``state`` is ``done``, or ``running`` with ``progress``, or ``failed`` with ``trouble``: ask again.
    """

    async def get(self, bed: str) -> None:
        """Answer."""
        sheet = await self.sheet(self.bed(bed))
        if sheet is None:
            self.send({"state": "done", "leads": []})
            return
        model = self.model(bed)
        works = [
            (self.room.want(place, model, strip.stop * sheet.grid.size), strip)
            for place, strip in places(bed, sheet)
        ]
        failed = next((work.error for work, _ in works if work.error), "")
        there = [(work.block, strip) for work, strip in works if work.block is not None]
        waiting = [work.progress for work, _ in works if work.block is None and not work.error]
        if not there and (waiting or failed):
            told: Packet = (
                {"state": "running", "progress": min(waiting)}
                if waiting
                else {"state": "failed", "trouble": failed}
            )
            self.send(told | {"model": model})
            return
        last, strip = works[-1]
        if last.block is not None:
            await self.room.look_ahead(last, strip.stop * sheet.grid.size)
        thresholds, untold = await self.thresholds(bed, model)
        drawn = await self.room.read(overlay, sheet, there, thresholds)
        drawn["hidden"] += untold
        state = "running" if waiting or any(work.waiting for work, _ in works) else "done"
        self.send(drawn | {"state": state, "progress": min(waiting, default=1.0), "trouble": failed})


class Comparison(_InRoom):
    """``GET /api/history/BED/comparison?from&seconds[&reference]``: see `monitor.history.comparison`."""

    async def get(self, bed: str) -> None:
        """Answer."""
        t0 = round(self.number("from", *_TIMES_MS) * 1e6)
        seconds = self.number("seconds", 0.5, LONGEST_S)
        pinned = None
        if self.get_query_argument("reference", None) is not None:
            pinned = round(self.number("reference", *_TIMES_MS) * 1e6)
        try:
            entries = await self.room.book.of(self.access.bus, self.bed(bed))
        except (RedisError, OSError) as error:
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error
        found = await self.room.read(archive.pieces, self.room.recordings, bed)
        stay = stay_of(entries, found, t0)
        asked = Asked(bed, t0, t0 + round(seconds * 1e9), pinned, self.model(bed))
        try:
            self.answer(await compare(self.room, asked, stay))
        except OSError as error:
            raise self.unreadable(error) from error


class Export(_InRoom):
    """``GET /api/history/BED/export.zip?from&to``, ``.png`` and ``.pdf``: a stretch to keep."""

    async def get(self, bed: str, form: str) -> None:
        """Answer."""
        t0, t1 = self.span(ZIP_S if form == "zip" else STRIP_S)
        try:
            if form == "zip":
                made = await zipped(self.room, self.bed(bed), t0, t1, self.model(bed))
            else:
                made = await strip(self.room, self.bed(bed), t0, t1, self.model(bed), form)
        except LimitedError as error:
            raise RefusedError(HTTPStatus.CONFLICT, str(error)) from error
        except OSError as error:
            raise self.unreadable(error) from error
        self.set_header("Content-Type", _TYPES[form])
        self.attach(made.name)
        self.finish(made.data)

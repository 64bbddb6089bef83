"""What `bedside analyze` says of some minutes of a recording, laid over sheets.

Every session is analysed in blocks that are counted from its first sample, so that all sheets share them.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from monitor.bed.overlay import between
from monitor.bed.sweep import microvolts, shades
from monitor.history.sheet import Packet, Sheet, Strip
from monitor.history.stays import Thresholds
from monitor.shades import ERROR_MV, ERROR_SDS, error_shade, shade
from stream.contract import INVALID

BLOCK_S = 300.0
"""Starting the program takes two seconds, five minutes of signal less than one."""

Rows = npt.NDArray[np.float32]

# Points of the model to each side of a stretch: what a cubic spline needs to be as in the middle.
_AROUND = 4


@dataclass(frozen=True)
class Place:
    """A block of a session.

    Attributes
    ----------
    bed, session : str
    fs : float
    leads : tuple of str
    number : int
        The first block of a session is 0.
    """

    bed: str
    session: str
    fs: float
    leads: tuple[str, ...]
    number: int

    @property
    def start(self) -> int:
        """First sample of the session."""
        return self.number * round(BLOCK_S * self.fs)

    @property
    def stop(self) -> int:
        """Sample after the last one."""
        return self.start + round(BLOCK_S * self.fs)


def places(bed: str, sheet: Sheet) -> list[tuple[Place, Strip]]:
    """Return the blocks that lie below a sheet."""
    found = []
    for strip in sheet.strips:
        one = strip.stretch
        long = round(BLOCK_S * one.fs)
        first, last = strip.start * sheet.grid.size // long, (strip.stop * sheet.grid.size - 1) // long
        found += [
            (Place(bed, one.session, one.fs, one.leads, number), strip) for number in range(first, last + 1)
        ]
    return found


class Block:
    """What was found in a block.

    Parameters
    ----------
    place : Place
    begin : int
        Sample of the session from which the analysis counts.
    stop : int
        Sample after the last one that was analysed.
    t0 : int
        Device time of `begin`, ns.
    folder : pathlib.Path
        With ``result.json`` and ``arrays.npz``, as `bedside analyze` writes them.

    Raises
    ------
    OSError, ValueError
        If they cannot be read.
    """

    def __init__(self, place: Place, begin: int, stop: int, t0: int, folder: Path) -> None:
        self.place, self.begin, self.stop, self._t0 = place, begin, stop, t0
        self.result: dict[str, Any] = json.loads((folder / "result.json").read_text())
        with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
            names = arrays["leads"].tolist()
            rows = [row for row, lead in enumerate(names) if lead in place.leads]
            self.leads = tuple(names[row] for row in rows)
            self._arrays: dict[str, Rows] = {
                name: arrays[name] if name == "temporal_attention" else arrays[name][rows]
                for name in (
                    "reconstruction_mv",
                    "absolute_error_mv",
                    "spread_mv",
                    "lead_attention",
                    "temporal_attention",
                )
                if name in arrays
            }
            self._t_s, self._fs = arrays["t_s"], float(arrays["fs"])

    @property
    def has_spread(self) -> bool:
        """Whether the model says how far off it expects to be."""
        return "spread_mv" in self._arrays

    def ms(self, seconds: float) -> float:
        """Return the device time of a time of the analysis, ms since the epoch."""
        return self._t0 / 1e6 + seconds * 1000

    @property
    def beats(self) -> list[int]:
        """R peaks, samples of the session."""
        return [self.begin + round(beat * self.place.fs) for beat in self.result["beats_s"]]

    def windows(self, thresholds: Thresholds) -> list[tuple[float, float, bool, float]]:
        """Return of each window that begins in the block its end, ms, its score, and if it is anomalous.

        And the threshold that was in force for it.
        """
        last_s = (self.place.stop - self.begin) / self.place.fs
        found = []
        for one in self.result["windows"]:
            if one["start_s"] < last_s:
                end, score, own = self.ms(one["end_s"]), one["score"], self.result["window_threshold"]
                held = thresholds.at(end * 1e6)
                over = one["anomalous"] if held is None else score > held
                found.append((end, score, over, own if held is None else held))
        return found

    def rates(self) -> list[tuple[float, float | None]]:
        """Return of each second of the block its end, ms, and the heart rate."""
        last_s = (self.place.stop - self.begin) / self.place.fs
        return [
            (self.ms(one["end_s"]), one["heart_rate_bpm"])
            for one in self.result["seconds"]
            if one["start_s"] < last_s
        ]

    def put(self, sheet: Sheet, strip: Strip, packet: Packet) -> None:
        """Write what belongs to a strip into the arrays and lists of a packet; see `overlay`."""
        grid, place = sheet.grid, self.place
        start = max(strip.start, math.ceil(max(place.start, self.begin) / grid.size))
        stop = min(strip.stop, place.stop // grid.size, self.stop // grid.size)
        if start >= stop:
            return
        at = ((grid.samples(start, stop) - self.begin) / place.fs - self._t_s[0]) * self._fs
        first = max(0, math.floor(at[0]) - _AROUND)
        last = min(len(self._t_s), math.ceil(at[-1]) + _AROUND + 1)
        at = np.clip(at - first, 0, last - first - 1)
        near = {name: values[..., first:last] for name, values in self._arrays.items()}
        rows = [(row, sheet.leads.index(lead)) for row, lead in enumerate(self.leads) if lead in sheet.leads]
        of = [row for row, _ in rows]
        to = [row for _, row in rows]
        points = slice(*((bucket - strip.origin) * grid.points for bucket in (start, stop)))
        buckets = slice(start - strip.origin, stop - strip.origin)
        middle = np.rint(at.reshape(stop - start, -1).mean(axis=1)).astype(np.intp)
        packet["expected"][to, points] = microvolts(_between(near["reconstruction_mv"][of], at))
        error, most = near["absolute_error_mv"][of], ERROR_MV
        if self.has_spread:
            packet["spread"][to, points] = microvolts(np.maximum(_between(near["spread_mv"][of], at), 0))
            with np.errstate(divide="ignore", invalid="ignore"):
                error, most = error / near["spread_mv"][of], ERROR_SDS
        packet["error"][to, buckets] = shades(error_shade(error[:, middle], most).T)
        if "lead_attention" in near:
            packet["attention"][to, buckets] = shades(shade(near["lead_attention"][of][:, middle]).T)
        if "temporal_attention" in near:
            packet["temporal"][:, buckets] = shades(shade(near["temporal_attention"][np.newaxis, middle]).T)
        packet["seconds"] += self._seconds(sheet, strip, start, stop)
        packet["beats"] += [
            beat // grid.size - strip.origin for beat in self.beats if start <= beat // grid.size < stop
        ]

    def _seconds(self, sheet: Sheet, strip: Strip, start: int, stop: int) -> list[list[Any]]:
        # As `monitor.bed.sweep` tells them: the first bucket, the one after the last, places of poor leads.
        told = []
        for second in self.result["seconds"]:
            low, high = (
                (self.begin + round(second[edge] * self.place.fs)) // sheet.grid.size
                for edge in ("start_s", "end_s")
            )
            low, high = max(low, start), min(high, stop)
            poor = [sheet.leads.index(lead) for lead in second["issues"] if lead in sheet.leads]
            if low < high:
                told.append([low - strip.origin, high - strip.origin, poor])
        return told


def _between(rows: Rows, at: npt.NDArray[np.float64]) -> Rows:
    return between(rows, at).T.astype(np.float32)


def overlay(sheet: Sheet, blocks: list[tuple[Block, Strip]], thresholds: Thresholds) -> Packet:
    """Return what a model says of a sheet, as `monitor.bed.sweep.Sweep.news` has it.

    And of the whole blocks ``windows``, ``rates`` (see `Block`), ``threshold`` (the model's own), ``model``
    and ``hidden``: which maps are not shown, and why.
    """
    grid, n = sheet.grid, len(sheet.leads)
    flat, wide = sheet.buckets, sheet.buckets * grid.points
    packet: Packet = {
        "from": 0,
        "expected": np.full((n, wide), INVALID, np.int16),
        "error": np.zeros((n, flat), np.uint8),
        "seconds": [],
        "beats": [],
    }
    one = blocks[0][0]
    packet["error_most"] = ERROR_SDS if one.has_spread else ERROR_MV
    packet["error_unit"] = "SD" if one.has_spread else "mV"
    if one.has_spread:
        packet["spread"] = np.full((n, wide), INVALID, np.int16)
    shown = {name for name, map_ in one.result["explanations"].items() if map_["shown"]}
    if "lead_attention" in shown:
        packet["attention"] = np.zeros((n, flat), np.uint8)
    if "temporal_attention" in shown:
        packet["temporal"] = np.zeros((1, flat), np.uint8)
    for block, strip in blocks:
        block.put(sheet, strip, packet)
    whole = list(dict.fromkeys(block for block, _ in blocks))
    packet["windows"] = [window for block in whole for window in block.windows(thresholds)]
    packet["rates"] = [rate for block in whole for rate in block.rates()]
    packet["threshold"] = one.result["window_threshold"]
    packet["model"] = one.result["model"]
    packet["hidden"] = [
        f"{name.replace('_', ' ')}: {map_['why_not']}"
        for name, map_ in one.result["explanations"].items()
        if not map_["shown"]
    ]
    return packet

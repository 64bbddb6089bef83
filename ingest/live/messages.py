"""Messages of home-grown devices, the same over TCP, WebSocket and MQTT: JSON, or a JSON header and samples.

``docs/adapters.md`` describes them for those who write such a device.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ingest.live.source import Piece
from ingest.source import IngestError
from stream.contract import INVALID, Validity, first_error

# A header with 64 leads of long names stays well below.
_HEADER_BYTES = 16_384


class _Message(BaseModel):
    # Strict, and no field that is not known: a device that sends "n_0" should hear of it on its first day.
    model_config = ConfigDict(extra="forbid", strict=True)

    bed: str | None = None
    device: str | None = None
    fs: float
    leads: tuple[str, ...]
    unit: str | None = None
    gain: float | tuple[float, ...] | None = None
    t: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    n0: int | None = None
    valid: tuple[Validity, ...] | None = None
    last: bool = False
    samples: Any = None

    @property
    def gains(self) -> tuple[float, ...] | None:
        if self.gain is None or isinstance(self.gain, tuple):
            return self.gain
        return (self.gain,) * len(self.leads)


def read_piece(data: bytes, *, sender: str, arrived_ns: int, bed: str | None = None) -> Piece:
    """Read a message.

    Parameters
    ----------
    data : bytes
        JSON with its samples in it; or a line of JSON, a newline, and samples as int16, little-endian.
    sender : str
        Names the device where the message does not.
    arrived_ns : int
    bed : str, optional
        Where the message names none.

    Raises
    ------
    IngestError
        If it is no such message; the text says why, for the device's developer.
    """
    end = data.find(b"\n", 0, _HEADER_BYTES)
    header = data if end < 0 else data[:end]
    payload: bytes | None = None
    try:
        try:
            message = _Message.model_validate_json(header)
            if end >= 0 and message.samples is None:
                payload = data[end + 1 :]
        except ValidationError:
            # JSON may be written over several lines.
            if end < 0 or not _is_text(data):
                raise
            message = _Message.model_validate_json(data)
    except ValidationError as error:
        raise IngestError(sender, first_error(error)) from None
    device = message.device or sender
    whom = message.bed if message.bed is not None else bed
    if whom is None:
        raise IngestError(device, "bed: missing")
    try:
        return _piece(message, payload, device, whom, arrived_ns)
    except IngestError as error:
        # Whose signal does not come is what a person wants to know.
        raise IngestError(device, f"bed {whom[:64]}: {str(error).removeprefix(f'{device}: ')}") from None


def _piece(message: _Message, payload: bytes | None, device: str, bed: str, arrived_ns: int) -> Piece:
    fields: dict[str, Any] = {
        "bed": bed,
        "device": device,
        "fs": message.fs,
        "leads": message.leads,
        "valid": message.valid,
        "n0": message.n0,
        "t_ns": None if message.t is None else round(message.t * 1e9),
        "arrived_ns": arrived_ns,
        "last": message.last,
    }
    if (message.unit is None) == (message.gain is None):
        raise IngestError(device, "unit or gain, one of the two: a unit (mV, uV, V), or LSB per mV")
    if payload is not None:
        return _binary(message, payload, fields)
    values = _values(message, device)
    if message.unit is not None:
        return Piece.of_floats(values, message.unit, **fields)
    return Piece(samples=_whole(values, device), gain=message.gains or (), **fields)


def _is_text(data: bytes) -> bool:
    return data.rstrip().endswith(b"}")


def _binary(message: _Message, payload: bytes, fields: dict[str, Any]) -> Piece:
    device = fields["device"]
    if message.gain is None:
        raise IngestError(device, "gain: samples behind a header are in LSB, and need the LSB per mV")
    row = 2 * len(message.leads)
    if row == 0 or len(payload) % row:
        raise IngestError(device, f"{len(payload)} bytes are no whole number of {row}-byte rows")
    samples = np.frombuffer(payload, "<i2").reshape(-1, len(message.leads)).astype(np.int16, copy=False)
    return Piece(samples=samples, gain=message.gains or (), **fields)


def _values(message: _Message, device: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    # A row for each time, a column for each lead; null where there is no sample.
    if not message.samples:
        return np.empty((0, len(message.leads)))
    try:
        return np.asarray(message.samples, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise IngestError(
            device, f"samples: rows of {len(message.leads)} numbers, one for each lead, are expected"
        ) from None


def _whole(values: np.ndarray[Any, np.dtype[np.float64]], device: str) -> np.ndarray[Any, np.dtype[np.int16]]:
    missing = ~np.isfinite(values)
    whole = np.where(missing, 0.0, values)
    if (whole != np.rint(whole)).any() or (np.abs(whole) > -INVALID).any():
        raise IngestError(device, f"samples: whole numbers from {INVALID} to {-INVALID - 1} go with a gain")
    samples = np.clip(whole, INVALID, -INVALID - 1).astype(np.int16)
    samples[missing] = INVALID
    return samples

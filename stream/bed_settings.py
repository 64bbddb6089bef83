"""What is in force for a bed: written by its worker where displays and programs can read it.

The hash ``<prefix>settings`` has a field for each bed, with one JSON object. It is what the bed's row in the
worker's table amounts to, and is written before it; docs/wire.md describes it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from stream.alarms.criteria import Criteria
from stream.alarms.state import BedState, Said
from stream.bus import Bus, until_answered
from stream.contract import MalformedMessageError, Vitals, first_error
from stream.refill import NEWEST
from stream.topics import VITALS

# One message a bed and second: five seconds of a ward of two hundred.
_PIECE, _PIECES = 256, 4


class BedSettings(BaseModel):
    """What is in force for one bed, and where it comes from."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    v: Literal[1] = 1
    bed: str
    session: str
    """The feed that the bed's worker has heard last."""
    at: int
    """When this was written, ns since the epoch, UTC, by the worker's clock."""
    model: str
    """Name of the model that judges the bed's windows."""
    chosen_model: str | None
    """What an operator chose; None: the worker's own."""
    own_model: str
    """The worker's own model."""
    threshold: float
    """Alarm threshold of the window scores in force."""
    threshold_from: Literal["model", "set", "baseline"]
    """``model``: the stored one, which came from validation normals; ``set`` by an operator; ``baseline``:
    from this patient's own ECG, which an operator confirmed to be their usual one."""
    stored_threshold: float
    """The model's."""
    limits: dict[str, float]
    """Of the rate and rhythm alarms, all that are in force; see `stream.vitals.rhythm.Limits`."""
    patient_threshold: float | None
    """What was set or confirmed for this patient; in force only if `confirmed`."""
    patient_limits: dict[str, float]
    """The limits that were set for this patient; in force only if `confirmed`."""
    confirmed: bool
    """False: another device feeds the bed, and nobody has said yet that the patient is the same."""
    admitted_t: int | None
    """Device time of the admission, ns; None for a bed that is used without."""
    said: dict[str, Said]
    """Who said so last, and when (device time), where somebody did: of ``admitted``, ``model``, ``limits``,
    and ``threshold`` or ``baseline``."""


def settings_of(
    bed: str, state: BedState, criteria: Criteria, own_model: str, limits: dict[str, float], at: int
) -> BedSettings:
    """Return what is in force for a bed.

    Parameters
    ----------
    bed : str
    state : BedState
    criteria : Criteria
        Of the model that judges it.
    own_model : str
        Name of the worker's own model.
    limits : dict of str to float
        All that are in force.
    at : int
        The time, ns since the epoch.
    """
    stay, stored = state.stay, criteria.thresholds.window
    own = stay.threshold if state.confirmed else None
    origin: Literal["model", "set", "baseline"] = "model"
    if own is not None:
        origin = "baseline" if "baseline" in stay.said else "set"
    return BedSettings(
        bed=bed,
        session=state.session,
        at=at,
        model=state.model,
        chosen_model=stay.model,
        own_model=own_model,
        threshold=stored if own is None else own,
        threshold_from=origin,
        stored_threshold=stored,
        limits=limits,
        patient_threshold=stay.threshold,
        patient_limits=stay.limits,
        confirmed=state.confirmed,
        admitted_t=stay.admitted_t,
        said=stay.said,
    )


class SettingsBook:
    """Writes settings, and waits for a server that is away.

    Parameters
    ----------
    bus : callable
        Returns the worker's own connection.
    """

    def __init__(self, bus: Callable[[], Awaitable[Bus]]) -> None:
        self._bus = bus

    async def write(self, settings: Collection[BedSettings]) -> None:
        """Write down what is in force for some beds."""
        if not settings:
            return
        fields: dict[Any, Any] = {one.bed: one.model_dump_json() for one in settings}

        async def put() -> None:
            bus = await self._bus()
            await bus.client.hset(_key(bus), mapping=fields)

        await until_answered("cannot write the settings of beds", put)


async def read_settings(bus: Bus, bed: str) -> BedSettings | None:
    """Return what is in force for a bed, None if no worker has ever heard it.

    Raises
    ------
    MalformedMessageError
        If what is there is not of this version.
    """
    found: Any = await bus.client.hget(_key(bus), bed)
    if found is None:
        return None
    try:
        return BedSettings.model_validate_json(found)
    except ValidationError as error:
        raise MalformedMessageError(first_error(error)) from error


async def read_clock_skew(bus: Bus, settings: BedSettings) -> float | None:
    """Return by how much the device's clock has fallen behind ours, seconds; None where nobody can tell.

    As of the bed's newest vitals: see `stream.contract.Vitals`.
    """
    before = NEWEST
    for _ in range(_PIECES):
        entries = await bus.recent(VITALS, 0, before, _PIECE)
        for entry in entries:
            if entry.key == settings.bed.encode():
                vitals = Vitals.decode(entry.value)
                return vitals.clock_skew_s if vitals.session == settings.session else None
        if len(entries) < _PIECE:
            break
        before = entries[-1].id
    return None


def _key(bus: Bus) -> str:
    return f"{bus.prefix}settings"

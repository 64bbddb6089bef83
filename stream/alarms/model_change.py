"""What becomes of a bed when another model judges it."""

from __future__ import annotations

from stream.alarms.conditions import ANOMALY, CONFIRM_PATIENT
from stream.alarms.machine import Seen, end, observe
from stream.alarms.state import BedState, Moment
from stream.contract import AlarmEvent


def change_model(
    state: BedState, moment: Moment, model: str, message: str, who: str = ""
) -> list[AlarmEvent]:
    """Go on with another model: nothing counts any more that the scores of the one before amounted to.

    Scores of two models are not on one scale. The alarm of the one before ends, windows are counted anew for
    the next, and a threshold that was set for the patient, or confirmed as their baseline, is dropped.

    Parameters
    ----------
    state : BedState
        Changed in place.
    moment : Moment
    model : str
        Name of the model that judges the bed's windows from now on. Nothing happens if it has done so before.
    message : str
        Why its alarm ends, for people.
    who : str
        Who changed it, if somebody did.

    Returns
    -------
    list of AlarmEvent
        Transitions, in order.
    """
    before, state.model = state.model, model
    if before in ("", model):
        return []
    state.history = []
    state.stay.threshold = None
    for what in ("threshold", "baseline"):
        state.stay.said.pop(what, None)
    events = end(state, ANOMALY, moment, message, who)
    if not state.stay.personal:
        # What was to be confirmed has gone.
        nothing = Seen(False, message="nothing is set for a patient any more")
        events += observe(state, CONFIRM_PATIENT, moment, nothing)
    return events

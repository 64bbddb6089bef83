"""A bed's state, as a table keeps it."""

from __future__ import annotations

from stream.alarms.state import BedState


def test_a_row_of_an_older_and_of_a_later_version_is_read() -> None:
    state = BedState.model_validate_json('{"session": "s", "scored_to": 5, "of_a_later_version": [1]}')
    assert state == BedState(session="s", scored_to=5)

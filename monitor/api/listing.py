"""``GET /api/alarms``: the open alarms, and what happened last."""

from __future__ import annotations

from http import HTTPStatus

from redis.exceptions import RedisError

from monitor.api.access import ApiHandler, RefusedError
from stream.contract import AlarmEvent, MalformedMessageError
from stream.subscription.follow import Alarm
from stream.topics import ALARMS

_RECENT = 50
_RECENT_MAX = 1_000


class AlarmList(ApiHandler):
    """Answers with open alarms, recent transitions, and the position behind which the stream goes on.

    And with the device time of each bed: alarms are told in it. Filters are as for the stream; ``recent``
    says how many transitions to look back at.
    """

    async def get(self) -> None:
        """Answer."""
        wanted = self.wanted()
        try:
            recent = int(self.get_query_argument("recent", str(_RECENT)))
        except ValueError:
            recent = -1
        if not 0 <= recent <= _RECENT_MAX:
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"recent: a number from 0 to {_RECENT_MAX}")
        pump = self.access.pump
        if pump.lost_since_ns is not None or pump.alarms_position is None:
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "the Redis server does not answer")
        # One look at the ward: whoever follows from this position misses nothing and sees nothing twice.
        position = pump.alarms_position
        beds = pump.ward.beds.values()
        everything = [*pump.ward.everywhere.values(), *(event for bed in beds for event in bed.open_alarms())]
        open_alarms = [event for event in everything if wanted.takes(event)]
        now_ns = self.access.clock.now_ns()
        try:
            entries = await self.access.bus.recent(ALARMS, 0, _behind(position), recent) if recent else []
        except (RedisError, OSError) as error:
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error
        latest = []
        for entry in entries:
            try:
                event = AlarmEvent.decode(entry.value)
            except MalformedMessageError:
                continue
            if wanted.takes(event):
                latest.append(Alarm(position=entry.id, **event.model_dump()))
        self.answer(
            {
                "position": position,
                "open": [event.model_dump(mode="json") for event in open_alarms],
                "recent": [event.model_dump(mode="json") for event in latest],
                "now": {bed.name: bed.device_time(now_ns) for bed in beds},
            }
        )


def _behind(position: str) -> str:
    # `recent` takes an exclusive bound.
    ms, _, sequence = position.partition("-")
    return f"{ms}-{int(sequence) + 1}"

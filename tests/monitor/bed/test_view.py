from __future__ import annotations

import asyncio
from typing import Any

from bokeh.models import ColumnDataSource

from monitor.bed.view import BedState, BedView
from monitor.live.pump import Pump
from monitor.live.ward import Ward
from stream.bus import Bus
from stream.clock import SystemClock
from stream.embedded import EmbeddedServer
from tests.monitor.messages import T0, S, chunk, finding

CHUNK_NS = S // 5


def test_a_browser_that_does_not_keep_up_is_sent_neither_traces_nor_words_nor_the_chart(
    redis_server: EmbeddedServer,
) -> None:
    async def run() -> None:
        async with await Bus.connect(redis_server.url) as bus:
            ward = Ward()
            view = BedView(Pump(bus, ward, SystemClock()), lambda: None)
            state = view.models["state"]
            assert isinstance(state, BedState)
            sent: dict[str, list[Any]] = {"packet": [], "words": [], "chart": []}
            for name in ("packet", "words"):
                state.on_change(name, lambda attribute, _old, new: sent[attribute].append(new))
            (figure,) = view.figures
            for source in figure.select({"type": ColumnDataSource}):
                source.on_change("data", lambda _attribute, _old, new: sent["chart"].append(new))

            def go_on(seconds: range) -> dict[str, list[Any]]:
                for news in sent.values():
                    news.clear()
                for seq in range(5 * seconds.start, 5 * seconds.stop):
                    now = T0 + (seq + 1) * CHUNK_NS
                    ward.take_chunk(chunk(seq), now)
                    ward.take_finding(finding(seq, score=seq / 10, t_end=now))
                    view.show(ward.beds["bed-1"], now)
                return sent

            state.taken = 0
            assert all(go_on(range(2)).values())
            # It has said nothing since.
            go_on(range(2, 3))
            assert not any(go_on(range(3, 8)).values())
            state.taken = state.packet["number"]
            assert all(go_on(range(8, 9)).values())
            assert "leads" in sent["packet"][0], "it begins anew"

    asyncio.run(run())

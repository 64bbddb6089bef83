"""One open page: a Bokeh document with its views, of which one is shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol

from bokeh.core.properties import Bool, Int, String
from bokeh.document import Document
from bokeh.model import DataModel, Model
from bokeh.models import CustomJS, LayoutDOM

from monitor.bed.view import BedView
from monitor.delivery import Delivery
from monitor.live.pump import Pump
from monitor.live.ward import Bed
from monitor.order import Order
from monitor.summary import bed_line, loudest, ward_trouble
from monitor.tiles.strips import Strips
from monitor.tiles.view import WardView
from stream.clock import Clock

VIEWS = ("ward", "bed", "alarms", "history", "analyse", "system")
"""In the order of the bar. Each has a template in ``templates/views``, and script and style in ``static``;
those that the server draws have a class, too."""

TICK_MS = 40
"""25 updates a second: above the 20 at which a sweep looks even."""
# The list tells durations in whole seconds; an alarm is shown at once.
_LIST_NS = 1_000_000_000
# The browser says twice a second that it draws. One that does not (a tab in the background, a machine that
# sleeps) gets no traces until it does again: what it cannot draw would pile up.
_DRAWING_NS = 3_000_000_000
# A page may take long to load the first time.
_FIRST_DRAWING_NS = 20_000_000_000


class View(Protocol):
    """A view that the server draws, in one page."""

    name: str

    @property
    def figures(self) -> list[LayoutDOM]:
        """What is to be drawn, each with the name by which the view's template embeds it."""

    @property
    def models(self) -> dict[str, Model]:
        """What the view's script is given, by name."""

    def show(self, bed: Bed | None, now_ns: int) -> None:
        """Bring the view up to now; `bed` is the selected one. Called for the view that is shown only."""

    def rest(self) -> None:
        """Stop: nobody sees the view. `show` may be called again."""


class PageState(DataModel):
    """What travels between the page's script and the server, whatever is shown."""

    ward: Any = String(default="{}")
    """JSON: the bed list and what is wrong with the whole; the same for every page."""
    view: Any = String(default="")
    """Name of the view that is shown."""
    selected: Any = String(default="")
    """Name of the bed that the user wants to see."""
    dark: Any = Bool(default=False)
    drawn: Any = Int(default=0)
    """Counts up while the browser draws."""
    taken: Any = Int(default=-1)
    """Number of the newest bed list that the browser has taken; -1 before it can take any."""


class Bulletin:
    """The bed list as all pages of a process show it: made once a second, and when an alarm changes."""

    def __init__(self, pump: Pump) -> None:
        self.names: list[str] = []
        """All beds in the order of the list."""
        self.number = 0
        """Of the list: each that is made has the next one."""
        self._pump = pump
        self._order = Order()
        self._text = "{}"
        self._made_ns = 0
        self._revision = -1

    def text(self, now_ns: int) -> str:
        """Return the list as JSON."""
        ward = self._pump.ward
        if ward.revision != self._revision or now_ns - self._made_ns >= _LIST_NS:
            self._revision, self._made_ns = ward.revision, now_ns
            beds = self._order.sorted(ward, now_ns)
            self.names = [bed.name for bed in beds]
            lost_since_ns = self._pump.lost_since_ns
            self.number += 1
            self._text = json.dumps(
                {
                    # Another one each time: a page hears from us also where nothing changes.
                    "number": self.number,
                    "made_ms": now_ns / 1e6,
                    "trouble": ward_trouble(ward, now_ns, lost_since_ns),
                    "lost": lost_since_ns is not None,
                    "sound": loudest(ward, now_ns, lost_since_ns),
                    "beds": [bed_line(bed, now_ns) for bed in beds],
                }
            )
        return self._text


class Page:
    """What one browser tab shows.

    Parameters
    ----------
    document : Document
        The session's; figures and state are added to it.
    pump : Pump
    bulletin : Bulletin
    strips : Strips
    clock : Clock
    bed, view : str
        Names of the bed and the view to show first; by default the most urgent bed, and the first view
        unless a bed is named.
    on_close : callable
        Called with the page when its session is gone.
    """

    def __init__(
        self,
        document: Document,
        pump: Pump,
        bulletin: Bulletin,
        strips: Strips,
        clock: Clock,
        bed: str,
        view: str,
        on_close: Callable[[Page], None],
    ) -> None:
        self._pump, self._bulletin, self._clock = pump, bulletin, clock
        self._document, self._on_close = document, on_close
        usual = BedView.name if bed else VIEWS[0]
        self._state = PageState(selected=bed, view=view if view in VIEWS else usual)
        bed_view = BedView(pump, self.wake)
        drawn: list[View] = [WardView(pump.ward, strips, lambda: bulletin.names), bed_view]
        self._views = {view.name: view for view in drawn}
        self._seen: View | None = None
        self._bed: str | None = None
        self._drawing_until_ns = clock.now_ns() + _FIRST_DRAWING_NS
        self._woken = False
        self._told = 0
        # By the lists it is told how far the page is behind with everything: all goes the same way, in order.
        self._delivery = Delivery()
        self._state.on_change("taken", lambda _attribute, _old, new: self._delivery.take(new))
        self._state.on_change("drawn", self._see_drawing)
        self._state.on_change("dark", lambda _attribute, _old, dark: bed_view.dress(dark=dark))
        figures = [figure for view in drawn for figure in view.figures]
        # A root needs a place on the page, which a state has not: states travel as tags of a figure.
        states = [model for view in drawn for model in view.models.values() if isinstance(model, DataModel)]
        figures[0].tags = [self._state, *states]
        for figure in figures:
            document.add_root(figure)
        names = [(view.name, name, model) for view in drawn for name, model in view.models.items()]
        given = ", ".join(
            f"{view.name}: {{{', '.join(f'{name}: {view.name}_{name}' for name in view.models)}}}"
            for view in drawn
        )
        document.js_on_event(
            "document_ready",
            CustomJS(
                args={"page": self._state} | {f"{view}_{name}": model for view, name, model in names},
                code=f"window.bedside.start(page, {{{given}}})",
            ),
        )
        document.add_periodic_callback(self.tick, TICK_MS)
        document.on_session_destroyed(lambda _: self.close())

    def close(self) -> None:
        """Let go of everything outside of the document."""
        self._rest()
        self._on_close(self)

    def wake(self) -> None:
        """Bring the page up to now, as soon as the document is free."""
        if not self._woken:
            self._woken = True
            self._document.add_next_tick_callback(self.tick)

    def tick(self) -> None:
        """Bring the page up to now."""
        self._woken = False
        now_ns = self._clock.now_ns()
        is_behind = self._delivery.is_behind(now_ns)
        if not is_behind:
            self._tell(now_ns)
        view = self._views.get(self._state.view)
        if is_behind or now_ns > self._drawing_until_ns:
            view = None
        if view is not self._seen:
            self._rest()
        if view is None:
            return
        self._seen = view
        bed = self._choose()
        self._bed = bed.name if bed else None
        view.show(bed, now_ns)

    def _tell(self, now_ns: int) -> None:
        self._state.ward = self._bulletin.text(now_ns)
        # While the page is being loaded, nothing is on its way that it could take.
        if self._state.taken >= 0 and self._bulletin.number != self._told:
            self._told = self._bulletin.number
            self._delivery.send(self._told, now_ns)

    def _rest(self) -> None:
        if self._seen is not None:
            self._seen.rest()
            self._seen = None

    def _choose(self) -> Bed | None:
        # The bed that the user wants, else the one shown, else the first of the list.
        beds = self._pump.ward.beds
        for name in (self._state.selected, self._bed):
            if name in beds:
                return beds[name]
        lines = json.loads(self._state.ward).get("beds")
        return beds.get(lines[0]["bed"]) if lines else None

    def _see_drawing(self, _attribute: str, _old: object, _new: object) -> None:
        self._drawing_until_ns = self._clock.now_ns() + _DRAWING_NS

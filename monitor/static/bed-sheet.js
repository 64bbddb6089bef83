// A sheet of ECG paper with leads on it: laid out for its box, with the names of the leads. What is painted when is for
// those to say who make one: the sweeping leads of now, and the still ones of the past.
"use strict";

window.bedside.parts.Sheet = (() => {
  const {element, write, restyle, parts} = window.bedside;

  function colour(styles, name) {
    return styles.getPropertyValue(`--${name}`).trim();
  }

  // 256 shades between three colours; 0 is none.
  function ramp(stops) {
    const values = stops.map((stop) => [1, 3, 5].map((at) => parseInt(stop.slice(at, at + 2), 16)));
    return Array.from({length: 256}, (_, shade) => {
      const at = (Math.max(0, shade - 1) / 254) * (stops.length - 1);
      const [low, part] = [Math.min(stops.length - 2, Math.floor(at)), at - Math.min(stops.length - 2, Math.floor(at))];
      return `rgb(${values[low].map((value, i) => Math.round(value + (values[low + 1][i] - value) * part)).join(" ")})`;
    });
  }

  return class Sheet {
    // `box`: the element that the sheet fills; it may scroll.
    constructor(box) {
      this.box = box;
      this.canvas = document.createElement("canvas");
      this.names = document.createElement("div");
      this.names.className = "names";
      box.append(this.canvas, this.names);
      this.painter = new parts.Painter(this.canvas);
      this.look = {leads: null, speed: 25, size: 0, scale: () => 96 / 25.4, show: {}};
      this.board = this.layout = null;
      this.notes = {};
      this.stale = true;
      // Called with the layout when all has been drawn anew.
      this.onLayout = () => {};
      new ResizeObserver(() => { this.stale = true; }).observe(box);
    }

    // Sets what is shown and how: `leads` (names), `speed` (mm/s), `size` (mm/mV, 0 for what fits), `scale` (takes a
    // width to pixels a millimetre), `show` (by layer). Only what is named changes.
    set(look) {
      Object.assign(this.look, look);
      this.stale = true;
    }

    // Leads of the feed that are shown, by their place in it.
    shown() {
      const all = this.board ? this.board.leads : [];
      const wanted = all.map((_, place) => place).filter((place) => this.look.leads?.includes(all[place]) ?? true);
      return wanted.length > 0 ? wanted : all.map((_, place) => place);
    }

    // How so many leads would be laid out.
    plan(n) {
      const {clientWidth: width, clientHeight: height} = this.box;
      const {speed, size} = this.look;
      return parts.paper.layOut({n: Math.max(1, n), width, height, scale: this.look.scale(width), speed, size});
    }

    // Draws all anew; a sheet of a kind says with `range` which buckets are to be seen.
    drawAll() {
      const {box, board, look} = this;
      this.stale = false;
      const styles = window.getComputedStyle(box);
      const shades = (name) => ramp([0, 1, 2].map((at) => colour(styles, `${name}-${at}`)));
      const names = ["paper", "minor", "major", "words", "trace", "expected", "band", "poor", "beat"];
      const colours = Object.fromEntries(names.map((name) => [name, colour(styles, name)]));
      Object.assign(colours, {error: shades("error"), attention: shades("attention")});
      const leads = this.shown();
      const {clientWidth: width, clientHeight: height} = box;
      this.layout = this.plan(leads.length);
      const tall = Math.max(height, Math.floor(this.layout.high * this.layout.scale));
      this.canvas.style.width = `${width}px`;
      this.canvas.style.height = `${tall}px`;
      const dots = window.devicePixelRatio;
      this.painter.place({board, layout: this.layout, leads, show: look.show, colours, dots, width, height: tall});
      if (board !== null) {
        const {low, high} = this.range();
        this.painter.paint(low, high, low, high);
      }
      this.drawNames(leads);
      this.onLayout(this.layout);
    }

    // Writes what is wrong with leads, or unusual in them, at their names.
    note(notes) {
      this.notes = notes;
      for (const name of this.names.children) this.writeNote(name);
    }

    writeNote(name) {
      const note = this.notes[name.dataset.lead];
      restyle(name, `name ${note?.style ?? "good"}`);
      write(name.children[1], note?.text ?? "");
    }

    drawNames(leads) {
      const {layout} = this;
      const {scale} = layout;
      this.names.replaceChildren();
      leads.forEach((lead, place) => {
        const name = element("div", "name", this.names);
        name.dataset.lead = this.board.leads[lead];
        name.style.left = `${layout.left(layout.column(place)) * scale + 2}px`;
        name.style.top = `${layout.top(place) * scale}px`;
        write(element("b", "", name), name.dataset.lead);
        element("span", "", name);
        this.writeNote(name);
      });
      if (this.look.show.attention && this.board?.has.temporal) {
        const foot = element("div", "foot", this.names);
        foot.style.left = `${layout.left(0) * scale + 2}px`;
        foot.style.top = `${(layout.foot + layout.thick) * scale}px`;
        write(foot, "attention, all leads");
      }
    }
  };
})();

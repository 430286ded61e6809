// Which model was in memory when: a lane for each model, the last hour from left to right, or since
// the start.

const HOUR = 3600;
const LEAST = 300; // seconds from left to right
const ON_THE_WAY = ["downloading", "loading", "waking"];
const GOING = ["parking", "stopping"];
const REDRAW = 5000; // ms
const WHY = new Map(Object.entries({
  room: "to make room for another model", ram: "CPU RAM was needed for another model",
  grown: "a model took more memory than was predicted", unused: "nobody used it",
  asked: "a person asked for it",
}));

function kindOf(move) {
  if (ON_THE_WAY.includes(move.state)) return "coming";
  if (GOING.includes(move.state)) return "leaving";
  if (move.state === "failed" || move.state === "pending") return move.state;
  return move.tier;
}

class Timeline {
  constructor(box, begin) {
    this.box = box;
    this.begin = begin;
    this.lanes = new Map();
    this.ahead = 0; // ms, of the instance's clock
    setInterval(() => this.draw(), REDRAW);
  }

  // Its time in seconds: this machine's clock may be another.
  setNow(seconds) {
    this.ahead = 1000 * seconds - Date.now();
  }

  reset() {
    this.lanes.clear();
    this.box.replaceChildren();
  }

  add(moves) {
    for (const move of moves) this.lane(move.model).moves.push(move);
    this.draw();
  }

  lane(model) {
    if (!this.lanes.has(model)) {
      const strip = h("div", { className: "strip", role: "img" });
      this.box.append(h("div", { className: "lane" }, h("span", { className: "of" }, model), strip));
      this.lanes.set(model, { strip, moves: [] });
    }
    return this.lanes.get(model);
  }

  draw() {
    if (document.hidden) return;
    const now = (Date.now() + this.ahead) / 1000;
    let first = now - LEAST;
    for (const lane of this.lanes.values()) {
      const old = lane.moves.findLastIndex((move) => move.time < now - HOUR);
      lane.moves.splice(0, Math.max(0, old));
      first = Math.min(first, lane.moves[0]?.time ?? first);
    }
    const span = Math.min(HOUR, now - first);
    setText(this.begin, `${Math.round(span / 60)} minutes ago`);
    for (const [model, lane] of this.lanes) this.fill(model, lane, now, span);
  }

  fill(model, { strip, moves }, now, span) {
    const place = (time) => Math.min(100, Math.max(0, 100 * (1 - (now - time) / span)));
    strip.replaceChildren(...moves.map((move, index) => {
      const left = place(move.time);
      const right = place(index + 1 < moves.length ? moves[index + 1].time : now);
      const why = WHY.get(move.reason) ?? move.reason;
      const piece = h("span", { className: `piece ${kindOf(move)}${GOING.includes(move.state) ? " eviction" : ""}` });
      piece.style.left = `${left}%`;
      piece.style.width = `${right - left}%`;
      piece.title = `${new Date(1000 * move.time).toLocaleTimeString()}: ${move.state} (${move.tier})${why && `, ${why}`}`;
      return piece;
    }));
    const count = (wanted) => moves.filter((move) => wanted.includes(move.state)).length;
    const last = moves.at(-1);
    strip.setAttribute("aria-label", `${model}, now ${last ? last.state : "unknown"}; in the last hour it came `
      + `${count(ON_THE_WAY.slice(1))} times and left ${count(GOING)} times`);
  }
}

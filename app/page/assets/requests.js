// The last requests, the newest first. Rows are made as a person scrolls to them.

const KEPT_REQUESTS = 500;
const ROWS_AT_ONCE = 40;
const PARTS = ["queue", "wake", "prefill", "generate"];
const LEFT_EARLY = 499;

function seconds(value) {
  return value >= 10 ? `${value.toFixed(1)} s` : value >= 1 ? `${value.toFixed(2)} s` : `${Math.round(1000 * value)} ms`;
}

// The seconds of each part.
function partsOf(request) {
  const wait = Math.min(request.wait ?? request.latency, request.latency);
  const prefill = Math.min(request.prefill ?? 0, request.latency - wait);
  return { queue: Math.max(0, wait - request.woke), wake: request.woke, prefill, generate: request.latency - wait - prefill };
}

class Requests {
  constructor(parts) {
    Object.assign(this, parts);
    this.reset();
    this.of.addEventListener("change", () => this.render());
    this.failed.addEventListener("change", () => this.render());
    this.box.addEventListener("scroll", () => {
      const left = this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight;
      if (left < this.box.clientHeight) this.more();
    });
  }

  setModels(names) {
    for (const name of names) {
      if (![...this.of.options].some((option) => option.value === name)) this.of.add(new Option(name, name));
    }
  }

  reset() {
    this.requests = [];
    this.render();
  }

  add(requests) {
    this.requests.push(...requests);
    this.requests.splice(0, this.requests.length - KEPT_REQUESTS);
    const wanted = requests.filter((request) => this.wanted(request)).reverse();
    this.found.unshift(...wanted);
    const kept = new Set(this.requests);
    while (this.found.length && !kept.has(this.found.at(-1))) this.found.pop();
    this.body.prepend(...wanted.slice(0, ROWS_AT_ONCE).map((request) => this.row(request)));
    // Whoever reads further down keeps the rows that are there; the others begin anew at the top.
    if (wanted.length > ROWS_AT_ONCE || this.box.scrollTop === 0) this.trim(ROWS_AT_ONCE);
    this.trim(this.found.length);
    this.count();
  }

  trim(most) {
    while (this.body.childElementCount > most) this.body.lastElementChild.remove();
  }

  wanted(request) {
    const failed = request.status >= 400 && request.status !== LEFT_EARLY;
    return (!this.of.value || this.of.value === request.model) && (!this.failed.checked || failed);
  }

  render() {
    this.found = this.requests.filter((request) => this.wanted(request)).reverse();
    this.body.replaceChildren();
    this.box.scrollTop = 0;
    this.more();
    this.count();
  }

  more() {
    const shown = this.body.childElementCount;
    this.body.append(...this.found.slice(shown, shown + ROWS_AT_ONCE).map((request) => this.row(request)));
  }

  count() {
    setText(this.counted, this.found.length ? `${this.found.length} of the last ${this.requests.length}` : "none yet");
  }

  row(request) {
    const number = (label, value) => h("td", { className: "number", "data-label": label }, value.toLocaleString("en"));
    const mood = request.status < 400 ? "good" : request.status === LEFT_EARLY ? "" : "bad";
    return h("tr", {},
      h("td", { className: "when" }, new Date(1000 * request.time).toLocaleTimeString()),
      h("th", { scope: "row" }, request.model, h("span", { className: "operation" }, request.operation), ...this.asked(request)),
      h("td", {}, request.caller || "–"),
      h("td", {}, h("span", { className: `pill ${mood}` }, String(request.status))),
      h("td", {}, this.bar(request)),
      number("Prompt", request.prompt_tokens), number("Cached", request.cached_tokens),
      number("Generated", request.generated_tokens));
  }

  // What was asked, where the instance keeps it.
  asked(request) {
    if (!request.prompt) return [];
    return [h("details", { className: "asked" }, h("summary", {}, "what was asked"), h("pre", { tabIndex: 0 }, request.prompt))];
  }

  bar(request) {
    const parts = partsOf(request);
    const bar = h("div", { className: "bar parts", role: "img" });
    for (const name of PARTS) {
      const part = h("span", { className: name });
      part.style.width = `${(100 * parts[name]) / Math.max(request.latency, 1e-6)}%`;
      bar.append(part);
    }
    const said = PARTS.filter((name) => parts[name] > 0).map((name) => `${name} ${seconds(parts[name])}`).join(", ");
    bar.setAttribute("aria-label", said || "no time");
    bar.title = said;
    return h("div", { className: "took" }, bar, h("span", {}, seconds(request.latency)));
  }
}

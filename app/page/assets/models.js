// The table of models, and the machine's memory above it. Rows are made once and then changed, so
// that a focused button stays focused.

const MOODS = {
  ready: "good", loading: "busy", waking: "busy", downloading: "busy", pending: "busy",
  parking: "busy", stopping: "busy", failed: "bad",
};
const TIERS = { gpu: "on the GPU", ram: "in RAM", disk: "on disk", none: "" };
const AWAY = ["cold", "parked", "failed"];

// How many tokens that were guessed in advance were right, and whether that is too few.
function guessed(speculation) {
  if (!speculation || speculation.acceptance === null) return "";
  const slower = speculation.slower && `; slower than without: ${speculation.slower}`;
  return `${Math.round(speculation.acceptance)} % of guesses right${slower}`;
}

class Models {
  constructor(body, machine, announce) {
    this.body = body;
    this.machine = machine;
    this.announce = announce;
    this.rows = new Map();
    this.bars = new Map();
    this.admin = false;
  }

  show(status) {
    const gpus = status.devices.map((device) => ({ ...device, label: `GPU ${device.id}${device.name && `: ${device.name}`}` }));
    this.showMachine([...gpus, { ...status.host, id: "host", label: "Host memory" }]);
    const onGpus = status.devices.reduce((sum, device) => sum + device.total, 0);
    for (const model of status.models) {
      if (!this.rows.has(model.name)) this.addRow(model);
      this.fill(this.rows.get(model.name), model, { onGpus, onHost: status.host.total });
    }
  }

  showMachine(devices) {
    for (const device of devices) {
      if (!this.bars.has(device.id)) {
        const text = h("span");
        const bar = h("span");
        const box = h("div", { className: "bar", role: "img" }, bar);
        this.machine.append(h("div", { className: "measure" }, text, box));
        this.bars.set(device.id, { text, bar, box });
      }
      const { text, bar, box } = this.bars.get(device.id);
      const said = `${bytes(device.used)} of ${bytes(device.total)}`;
      setText(text, `${device.label}: ${said}`);
      box.setAttribute("aria-label", `${device.label}: ${said}`);
      bar.style.width = `${Math.min(100, (100 * device.used) / device.total)}%`;
    }
  }

  addRow(model) {
    const cell = (name) => h("td", { className: "number", "data-label": name });
    const row = {
      url: h("span", { id: `url-${this.rows.size}` }), pill: h("span", { className: "pill" }),
      tier: h("span", { className: "tier" }), reason: h("span", { className: "reason" }),
      coming: h("span"), held: h("span"), placed: h("span", { className: "placed" }), guesses: h("span", { className: "guesses" }), share: h("span"), context: cell("Context"),
      slots: cell("Slots"), flight: cell("In flight"), waiting: cell("Waiting"),
      requests: cell("Requests"), denied: cell("Denied"), buttons: {},
    };
    const copy = h("button", { type: "button", className: "small", "aria-label": `Copy the endpoint of ${model.name}` }, "Copy");
    copy.dataset.copy = row.url.id;
    row.progress = h("div", { className: "bar coming", role: "progressbar", "aria-label": `Progress of ${model.name}`,
      "aria-valuemin": "0", "aria-valuemax": "100", hidden: true }, row.coming);
    row.memory = h("div", { className: "bar", role: "img" }, row.share);
    const actions = h("div", { className: "actions" });
    for (const [action, title] of [["load", "Load"], ["park", "Park"], ["unload", "Unload"], ["pin", "Pin"]]) {
      row.buttons[action] = h("button", { type: "button", "aria-label": `${title} ${model.name}` }, title);
      row.buttons[action].addEventListener("click", () => this.act(row, model.name, action));
      actions.append(row.buttons[action]);
    }
    this.body.append(h("tr", {},
      h("th", { scope: "row" }, model.name, h("span", { className: "aliases" }, model.aliases.join(", ")),
        h("span", { className: "url" }, row.url, " ", copy)),
      h("td", {}, row.pill, row.tier, row.progress, row.reason, row.guesses),
      h("td", { className: "memory" }, row.held, row.memory, row.placed),
      row.context, row.slots, row.flight, row.waiting, row.requests, row.denied,
      h("td", {}, actions)));
    this.rows.set(model.name, row);
  }

  fill(row, model, totals) {
    const percent = model.progress === null ? null : Math.round(100 * model.progress);
    row.state = model.state;
    row.pinned = model.pinned;
    setText(row.pill, percent === null ? model.state : `${model.state} ${percent} %`);
    row.pill.className = `pill ${MOODS[model.state] || ""}`;
    setText(row.tier, TIERS[model.tier]);
    setText(row.reason, model.reason);
    row.reason.classList.toggle("unused", model.unused);
    setText(row.url, connection.modelUrl(model.name));
    row.progress.hidden = percent === null;
    row.progress.setAttribute("aria-valuenow", String(percent || 0));
    row.coming.style.width = `${percent || 0}%`;
    const devices = Object.values(model.memory.gpu).reduce((sum, size) => sum + size, 0);
    const counted = Object.values(model.need).reduce((sum, size) => sum + size, 0);
    const needed = Math.max(0, counted - model.prompt_cache); // the prompt cache takes memory only once it is used
    const held = devices || model.memory.host;
    const said = held ? `${bytes(held)} held` : needed ? `needs ${bytes(needed)}` : "–";
    setText(row.held, said);
    setText(row.placed, model.placed && `planned: ${model.placed}`);
    setText(row.guesses, guessed(model.speculation));
    row.memory.setAttribute("aria-label", `Memory of ${model.name}: ${said}`);
    row.share.style.width = `${Math.min(100, (100 * held) / (devices ? totals.onGpus : totals.onHost))}%`;
    setText(row.context, model.context === null ? "–" : String(model.context));
    setText(row.slots, model.slots === null ? "–" : String(model.slots));
    setText(row.flight, String(model.in_flight));
    setText(row.waiting, String(model.queued));
    setText(row.requests, String(model.requests));
    setText(row.denied, String(model.denied));
    const { load, park, unload, pin } = row.buttons;
    load.disabled = !this.admin || !AWAY.includes(model.state);
    park.disabled = !this.admin || model.state !== "ready" || model.in_flight > 0;
    unload.disabled = !this.admin || !["ready", "parked"].includes(model.state) || model.in_flight > 0;
    pin.disabled = !this.admin;
    pin.setAttribute("aria-pressed", String(model.pinned));
  }

  async act(row, name, action) {
    const asked = action === "pin" && row.pinned ? "unpin" : action;
    try {
      await connection.act(name, asked);
      this.announce(`${name}: ${asked} was asked for`);
    } catch (error) {
      this.announce(`${name}: ${error.message}`, true);
    }
  }
}

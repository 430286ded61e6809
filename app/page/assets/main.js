// Connects the page's parts.

(() => {
  const get = (id) => document.getElementById(id);
  const announce = (text, wrong) => {
    setText(get("announce"), text);
    if (wrong) trouble(text, 8000);
  };
  const models = new Models(get("rows"), get("machine"), announce);
  const plots = new Plots(get("plots"));
  const log = new Log({ box: get("log"), of: get("log-of"), filter: get("log-filter"), follow: get("follow") });
  const timeline = new Timeline(get("timeline"), get("timeline-begin"));
  const requests = new Requests({
    box: get("requests"), body: get("request-rows"), of: get("requests-of"), failed: get("requests-failed"),
    counted: get("requests-count"),
  });
  let status = null;
  let hello = { key: "" };
  let heard = 0; // when the status arrived, by this page's clock
  let chosen = "curl";

  function trouble(text, forMilliseconds) {
    const box = get("trouble");
    clearTimeout(box.timer);
    box.hidden = !text;
    setText(box, text);
    if (forMilliseconds) box.timer = setTimeout(() => (box.hidden = true), forMilliseconds);
  }

  // Commands and chat.

  const picked = () => status?.models.find((model) => model.name === get("model").value);

  function showCommand() {
    const model = picked();
    if (!model || chosen === "chat") return;
    const target = { model: model.name, url: connection.modelUrl(model.name), embedding: model.embedding, key: hello.key };
    setText(get("command"), COMMANDS[chosen](target, get("prompt").value));
    setText(get("hint"), replacing(hello.key));
  }

  wireTabs(get("tabs"), (tab) => {
    chosen = tab.dataset.command || "chat";
    get("command-panel").hidden = chosen === "chat";
    get("chat-panel").hidden = chosen !== "chat";
    if (chosen !== "chat") get("command-panel").setAttribute("aria-labelledby", tab.id);
    showCommand();
  });
  wireCopying(announce);
  get("model").addEventListener("change", showCommand);
  get("prompt").addEventListener("input", showCommand);
  new Chat({
    panel: get("chat-panel"), talk: get("talk"), state: get("chat-state"), prompt: get("prompt"),
    send: get("send"), halt: get("halt"), forget: get("forget"),
  }, picked);

  // Status.

  const MOOD = { active: "good", "setting up": "busy", stopping: "bad" };

  function showStatus(told) {
    status = told;
    heard = performance.now();
    timeline.setNow(told.time);
    setText(get("status"), told.status);
    get("status").className = `pill ${MOOD[told.status] || ""}`;
    setText(get("version"), `version ${told.version} · ${told.endpoint}`);
    document.title = `${told.status} · Llama.cpp Model Deployment`;
    const names = told.models.map((model) => model.name);
    const select = get("model");
    if (select.options.length !== names.length) {
      select.replaceChildren(...names.map((name) => new Option(name, name)));
      log.setSubjects(names);
      requests.setModels(names);
    }
    models.show(told);
    showCallers(get("callers"), get("caller-rows"), told.callers);
    showClocks();
    showCommand();
  }

  function showClocks() {
    if (!status) return;
    const since = (performance.now() - heard) / 1000;
    const busy = status.models.some((model) => model.in_flight || model.queued);
    const idle = busy || status.status === "setting up" ? 0 : status.idle.seconds + since;
    setText(get("idle"), duration(idle));
    setText(get("limit"), status.idle.limit ? duration(status.idle.limit) : "∞");
    setText(get("activity"), busy ? "now" : new Date(status.last_activity).toLocaleTimeString());
    setText(get("uptime"), duration(status.uptime + since));
  }

  setInterval(showClocks, 1000);

  // Dark and light.

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;

  function isDark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
  }

  function themed() {
    setText(get("theme"), isDark() ? "Light" : "Dark");
    plots.redraw();
  }

  get("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    keep("llamacpp-theme", root.dataset.theme);
    themed();
  });
  dark.addEventListener("change", themed);
  if (keep("llamacpp-theme")) root.dataset.theme = keep("llamacpp-theme");
  themed();

  // The key.

  const dialog = get("key-dialog");

  let given = null; // called when a person has entered a key

  function askKey() {
    if (!dialog.open) dialog.showModal();
    return new Promise((resolve) => (given = resolve));
  }

  get("ask-key").addEventListener("click", () => dialog.showModal());
  get("key-cancel").addEventListener("click", () => dialog.close());
  get("key-form").addEventListener("submit", () => {
    connection.setKey(get("key").value.trim());
    get("key").value = "";
    given?.();
  });

  addEventListener("hashchange", () => connection.takeToken());

  connection.follow({
    hello(told) {
      hello = told;
      models.admin = told.admin;
      get("admin-hint").hidden = told.admin;
      trouble("");
      log.reset();
      requests.reset();
      timeline.reset();
      plots.setColumns(told.columns, told.plots);
      showCommand();
    },
    status: showStatus,
    history: (rows) => plots.setRows(rows),
    row: (row) => plots.addRow(row),
    requests: (ended) => requests.add(ended),
    moves: (moves) => timeline.add(moves),
    log: (lines) => log.add(lines),
    async lost(why, code) {
      setText(get("status"), code === 401 ? "key needed" : "not connected");
      get("status").className = "pill bad";
      if (code === 401) {
        trouble("This page shows nothing without a key.");
        await askKey();
      } else {
        trouble(`Not connected: ${why}. The page tries again.`);
      }
    },
  });
})();

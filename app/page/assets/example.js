// The page of commands alone. ClearML shows it in a frame without an origin.

(() => {
  const get = (id) => document.getElementById(id);
  const targets = JSON.parse(get("targets").textContent);
  let chosen = "curl";

  for (const target of targets) get("model").add(new Option(target.model, target.model));

  function show() {
    const target = targets.find((one) => one.model === get("model").value) || targets[0];
    get("hint").textContent = replacing(target.key);
    get("command").textContent = COMMANDS[chosen](target, get("prompt").value);
  }

  wireTabs(get("tabs"), (tab) => {
    chosen = tab.dataset.command;
    get("command-panel").setAttribute("aria-labelledby", tab.id);
    show();
  });
  wireCopying((text) => (get("announce").textContent = text));
  get("model").addEventListener("change", show);
  get("prompt").addEventListener("input", show);
  show();
})();

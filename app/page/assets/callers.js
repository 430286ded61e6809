// The table of the callers of the keys file.

function showCallers(section, body, callers) {
  section.hidden = !callers.length;
  const cell = (name, value) => h("td", { className: "number", "data-label": name }, value.toLocaleString("en"));
  body.replaceChildren(...callers.map((caller) => h("tr", {},
    h("th", { scope: "row" }, caller.name),
    cell("Requests", caller.requests), cell("Denied", caller.denied),
    cell("Prompt tokens", caller.prompt_tokens), cell("Cached tokens", caller.cached_tokens),
    cell("Generated tokens", caller.generated_tokens))));
}

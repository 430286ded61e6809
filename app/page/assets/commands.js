// The commands that call a model with a prompt. app/page/examples.py makes the same ones.

const PLACEHOLDER_PROMPT = "Hello world!";

// What to do before the command works; "" for a caller who needs no key.
function replacing(key) {
  if (!key) return "";
  const where = key === "YOUR_API_KEY" ? " If a ClearML agent runs the instance, python -m app key TASK prints the key; TASK is the ID of its task." : "";
  return `Replace ${key} before running the command.${where}`;
}

// A POSIX shell changes nothing between single quotes.
function shellQuoted(text) {
  return "'" + text.replaceAll("'", "'\\''") + "'";
}

// `target`: {model, url, embedding, key}; `url` ends in /v1, `key` is a placeholder or "".
function requestOf(target, prompt) {
  if (target.embedding) {
    return { path: "/embeddings", body: { model: target.model, input: prompt } };
  }
  const messages = [{ role: "user", content: prompt }];
  return { path: "/chat/completions", body: { model: target.model, messages } };
}

function curlCommand(target, prompt) {
  const { path, body } = requestOf(target, prompt);
  const lines = [`curl ${shellQuoted(target.url + path)}`];
  lines.push("-H 'Content-Type: application/json'");
  if (target.key) lines.push(`-H ${shellQuoted(`Authorization: Bearer ${target.key}`)}`);
  lines.push(`-d ${shellQuoted(JSON.stringify(body, null, 2))}`);
  return lines.join(" \\\n  ");
}

function pythonCommand(target, prompt) {
  const text = JSON.stringify;
  const lines = [
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${text(target.url)}, api_key=${text(target.key || "none")})`,
  ];
  if (target.embedding) {
    lines.push(`answer = client.embeddings.create(model=${text(target.model)}, input=${text(prompt)})`);
    lines.push("print(answer.data[0].embedding)");
  } else {
    lines.push("answer = client.chat.completions.create(");
    lines.push(`    model=${text(target.model)},`);
    lines.push(`    messages=[{"role": "user", "content": ${text(prompt)}}],`);
    lines.push(")", "print(answer.choices[0].message.content)");
  }
  return lines.join("\n");
}

function javascriptCommand(target, prompt) {
  const text = JSON.stringify;
  const { path, body } = requestOf(target, prompt);
  const lines = [`const response = await fetch(${text(target.url + path)}, {`, '  method: "POST",'];
  const headers = { "Content-Type": "application/json" };
  if (target.key) headers.Authorization = `Bearer ${target.key}`;
  lines.push(`  headers: ${text(headers)},`);
  lines.push(`  body: JSON.stringify(${text(body)}),`, "});");
  lines.push("const answer = await response.json();");
  const found = target.embedding ? "data[0].embedding" : "choices[0].message.content";
  lines.push(`console.log(answer.${found});`);
  return lines.join("\n");
}

const COMMANDS = { curl: curlCommand, python: pythonCommand, javascript: javascriptCommand };

// A frame without an origin may not use the clipboard interface, but may copy a selection.
async function copyText(text, source) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const selection = window.getSelection();
    const range = document.createRange();
    range.selectNodeContents(source);
    selection.removeAllRanges();
    selection.addRange(range);
    let copied = false;
    try {
      copied = document.execCommand("copy");
    } catch {
      copied = false;
    }
    if (copied) selection.removeAllRanges();
    return copied; // if not, the text stays selected for Ctrl+C
  }
}

// A button with data-copy copies the text of the element with that id.
function wireCopying(announce) {
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const source = document.getElementById(button.dataset.copy);
    const copied = await copyText(source.textContent, source);
    const said = copied ? "Copied" : "Press Ctrl+C";
    announce(copied ? "Copied to the clipboard" : "Selected: press Ctrl+C to copy");
    const before = button.dataset.label || button.textContent;
    button.dataset.label = before;
    button.textContent = said;
    clearTimeout(button.timer);
    button.timer = setTimeout(() => (button.textContent = before), 2000);
  });
}

// Tabs after WAI-ARIA's pattern: arrows, Home and End move, and one tab is in the tab order.
function wireTabs(list, choose) {
  const tabs = [...list.querySelectorAll("[role=tab]")];
  const select = (tab, focus) => {
    for (const other of tabs) {
      const chosen = other === tab;
      other.setAttribute("aria-selected", String(chosen));
      other.tabIndex = chosen ? 0 : -1;
    }
    if (focus) tab.focus();
    choose(tab);
  };
  list.addEventListener("click", (event) => {
    const tab = event.target.closest("[role=tab]");
    if (tab) select(tab, false);
  });
  list.addEventListener("keydown", (event) => {
    const at = tabs.indexOf(document.activeElement);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    select(tabs[(to + tabs.length) % tabs.length], true);
  });
}

// The instance's events, read with fetch so that a key can be sent.

// Every address lies below the page's own path, whatever a gateway puts before that.
const BASE = new URL(location.pathname.endsWith("/") ? "." : `${location.pathname}/`, location.href);
const LONGEST_PAUSE = 10000;

function keep(name, value) {
  try {
    if (value === undefined) return sessionStorage.getItem(name) || "";
    sessionStorage.setItem(name, value);
  } catch {
    // a frame without storage: the value is kept until the page is left
  }
  return value || "";
}

// The console prints an address that ends in #token=…: whoever has it may load and unload models of
// an instance without a key. It does not stay in the address, where people would copy it on.
function tokenOfAddress() {
  const [, token] = /^#token=([\w-]+)$/.exec(location.hash) || [];
  if (token) history.replaceState(history.state, "", location.pathname + location.search);
  return keep("llamacpp-token", token);
}

const connection = {
  key: keep("llamacpp-key"),
  token: tokenOfAddress(),

  headers(more) {
    return this.key ? { ...more, Authorization: `Bearer ${this.key}` } : { ...more };
  },

  // What shows the instance that this page may change models. With a keys file, the token is the
  // instance's own key.
  adminHeaders(more) {
    return this.token ? { ...this.headers(more), "X-Api-Key": this.token } : this.headers(more);
  },

  // The address that the console prints was opened in this tab, where the page already was.
  takeToken() {
    if (!location.hash.startsWith("#token=")) return;
    this.token = tokenOfAddress();
    this.again?.abort("token");
  },

  setKey(key) {
    this.key = key;
    keep("llamacpp-key", key);
    this.again?.abort("key"); // the open response was asked for with another key
  },

  // A model's own OpenAI base URL, as this page reaches it.
  modelUrl(name) {
    const path = name.split("/").map(encodeURIComponent).join("/");
    return new URL(`${path}/v1`, BASE).href;
  },

  async act(name, action) {
    const path = name.split("/").map(encodeURIComponent).join("/");
    const url = new URL(`api/models/${path}/${action}`, BASE);
    const response = await fetch(url, { method: "POST", headers: this.adminHeaders() });
    if (!response.ok) throw new Error(await errorOf(response));
  },

  // Calls `handlers[event](data)` for each event, and `handlers.lost(why, status)` before it retries.
  async follow(handlers) {
    let pause = 500;
    for (;;) {
      let status = 0;
      let why = "the connection was closed";
      this.again = new AbortController();
      const { signal } = this.again;
      try {
        const options = { headers: this.adminHeaders({ Accept: "text/event-stream" }), cache: "no-store", signal };
        const response = await fetch(new URL("api/events", BASE), options);
        status = response.status;
        if (!response.ok) throw new Error(await errorOf(response));
        pause = 500;
        await eachEvent(response.body, (name, data) => handlers[name]?.(data));
      } catch (error) {
        why = error?.message;
      }
      if (signal.aborted) continue;
      await handlers.lost(why, status);
      await new Promise((resolve) => setTimeout(resolve, pause));
      pause = Math.min(2 * pause, LONGEST_PAUSE);
    }
  },
};

async function errorOf(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `HTTP ${response.status}`;
  }
}

const TURN = 20; // ms of events between two turns of the page

// Server-sent events (WHATWG HTML, 9.2.6), as far as this app and llama-server use them.
async function eachEvent(body, take) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  let begun = performance.now();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      let name = "message";
      const data = [];
      for (const line of block.split("\n")) {
        if (line.startsWith("event: ")) name = line.slice(7);
        else if (line.startsWith("data: ")) data.push(line.slice(6));
      }
      if (!data.length || data[0] === "[DONE]") continue;
      take(name, JSON.parse(data.join("\n")));
    }
    // Reads that never wait would keep clicks and painting waiting.
    if (performance.now() - begun > TURN) {
      await new Promise((resolve) => setTimeout(resolve));
      begun = performance.now();
    }
  }
}

// An element: `h("td", {className: "number"}, "12")`.
function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function bytes(size) {
  if (size >= 1e9) return `${(size / 1e9).toFixed(size >= 1e10 ? 1 : 2)} GB`;
  return `${Math.round(size / 1e6)} MB`;
}

function duration(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

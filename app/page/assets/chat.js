// A small chat to try a model. Its answers are shown as text, never as markup.

class Chat {
  constructor(parts, pick) {
    Object.assign(this, parts);
    this.pick = pick;
    this.messages = [];
    this.running = null;
    this.send.addEventListener("click", () => this.ask());
    this.halt.addEventListener("click", () => this.running?.abort());
    this.forget.addEventListener("click", () => this.clear());
    this.prompt.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing && !this.panel.hidden) {
        event.preventDefault();
        this.ask();
      }
    });
  }

  // Begins a new conversation. The answer under way belongs to the old one, and is dropped.
  clear() {
    this.end();
    this.messages = [];
    this.talk.replaceChildren();
    setText(this.state, "");
  }

  end() {
    this.running?.abort();
    this.running = null;
    this.send.disabled = false;
    this.halt.disabled = true;
  }

  show(role, text) {
    const said = h("span", {}, text);
    const thought = h("span", { className: "thought" });
    this.talk.append(h("li", { className: role }, h("span", { className: "who" }, role), thought, said));
    this.talk.scrollTop = this.talk.scrollHeight;
    return { said, thought };
  }

  async ask() {
    const model = this.pick();
    const prompt = this.prompt.value;
    if (this.running || !model || !prompt.trim()) return;
    if (model.embedding) {
      setText(this.state, `${model.name} makes embeddings: it does not chat.`);
      return;
    }
    this.messages.push({ role: "user", content: prompt });
    this.show("user", prompt);
    const running = (this.running = new AbortController());
    this.send.disabled = true;
    this.halt.disabled = false;
    const shown = this.show("assistant", "");
    const answer = { role: "assistant", content: "" };
    let told = "";
    try {
      told = await this.read(model, shown, answer, running.signal);
    } catch (error) {
      const stopped = error.name === "AbortError";
      told = stopped ? "Stopped." : "It failed.";
      if (!stopped) shown.said.append(h("span", { className: "wrong" }, ` ${error.message}`));
    }
    if (running !== this.running) return; // a new conversation has begun
    setText(this.state, told);
    if (answer.content) this.messages.push(answer);
    else this.messages.pop();
    this.end();
  }

  // Shows the answer as it comes. Returns its length and speed, in words.
  async read(model, shown, answer, signal) {
    setText(this.state, `${model.name} is asked …`);
    const begun = performance.now();
    const response = await fetch(`${connection.modelUrl(model.name)}/chat/completions`, {
      method: "POST", signal,
      headers: connection.adminHeaders({ "Content-Type": "application/json" }),
      body: JSON.stringify({ model: model.name, messages: this.messages, stream: true }),
    });
    if (!response.ok) throw new Error(await errorOf(response));
    let first = 0;
    let timings = null;
    const text = new Painted(shown, this.talk);
    try {
      await eachEvent(response.body, (_, event) => {
        if (event.error) throw new Error(event.error.message);
        const delta = event.choices?.[0]?.delta || {};
        first = first || performance.now() - begun;
        answer.content += delta.content || "";
        text.add(delta);
        timings = event.timings || timings;
      });
    } finally {
      text.paint();
    }
    const speed = timings?.predicted_per_second ? `, ${Math.round(timings.predicted_per_second)} tokens/s` : "";
    const count = timings ? `${timings.predicted_n} tokens, ` : "";
    return `${count}first after ${Math.round(first)} ms${speed}`;
  }
}

// The text of an answer that comes. It is put into the page once a frame, however many tokens come
// meanwhile: the page is laid out anew each time.
class Painted {
  constructor(shown, box) {
    this.shown = shown;
    this.box = box;
    this.said = this.thought = "";
    this.frame = 0;
  }

  add(delta) {
    this.said += delta.content || "";
    this.thought += delta.reasoning_content || "";
    this.frame = this.frame || requestAnimationFrame(() => this.paint());
  }

  paint() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    if (this.thought) this.shown.thought.append(this.thought);
    if (this.said) this.shown.said.append(this.said);
    this.said = this.thought = "";
    this.box.scrollTop = this.box.scrollHeight;
  }
}

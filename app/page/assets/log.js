// The log of the whole instance or of one model, the newest line last.

const SHOWN_LINES = 1500;

class Log {
  constructor(parts) {
    Object.assign(this, parts);
    this.lines = [];
    this.of.addEventListener("change", () => this.render());
    this.filter.addEventListener("input", () => this.render());
  }

  setSubjects(names) {
    for (const name of ["app", ...names]) {
      if (![...this.of.options].some((option) => option.value === name)) this.of.add(new Option(name, name));
    }
  }

  reset() {
    this.lines = [];
    this.box.replaceChildren();
  }

  add(lines) {
    this.lines.push(...lines);
    this.lines.splice(0, this.lines.length - 2 * SHOWN_LINES);
    const shown = lines.filter((line) => this.wanted(line));
    this.box.append(...shown.map((line) => this.line(line)));
    while (this.box.childElementCount > SHOWN_LINES) this.box.firstElementChild.remove();
    if (this.follow.checked) this.box.scrollTop = this.box.scrollHeight;
  }

  wanted([, , subject, text]) {
    const needle = this.filter.value.toLowerCase();
    return (!this.of.value || this.of.value === subject) && (!needle || text.toLowerCase().includes(needle));
  }

  line([time, level, subject, text]) {
    const when = new Date(1000 * time).toTimeString().slice(0, 8);
    return h("div", { className: level }, h("span", { className: "when" }, when), " ",
      h("span", { className: "who" }, subject), ` ${text}`);
  }

  render() {
    const shown = this.lines.filter((line) => this.wanted(line)).slice(-SHOWN_LINES);
    this.box.replaceChildren(...shown.map((line) => this.line(line)));
    if (this.follow.checked) this.box.scrollTop = this.box.scrollHeight;
  }
}

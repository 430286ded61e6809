// The page of a door: what /api/status says, every two seconds. All texts are set as texts.
(() => {
  const get = (id) => document.getElementById(id);
  const cards = new Map();
  const key = { get: () => sessionStorage.getItem("llamacpp-key") || "", set: (value) => sessionStorage.setItem("llamacpp-key", value) };

  function text(element, value) {
    if (element.textContent !== value) element.textContent = value;
  }

  function row(cells) {
    const tr = document.createElement("tr");
    for (const cell of cells) {
      const td = document.createElement("td");
      td.textContent = cell;
      tr.append(td);
    }
    return tr;
  }

  function rows(route) {
    const instances = (route.instances || []).map((each) => row([
      each.task, each.problem ? `${each.state}: ${each.problem}` : each.state, `${each.machine}, ${each.address}`,
      String(each.slots), String(each.in_flight),
      Object.entries(each.models).map(([name, model]) => `${name}: ${model.state}`).join(", "),
    ]));
    const coming = (route.coming || []).map((each) => row([each.task, each.text || each.status, "", "", "", ""]));
    return [...instances, ...coming];
  }

  function card(name) {
    if (!cards.has(name)) {
      get("routes").append(get("route").content.cloneNode(true));
      cards.set(name, get("routes").lastElementChild);
    }
    return cards.get(name);
  }

  function line(values, top) {
    const last = Math.max(1, values.length - 1);
    return values.map((value, at) => `${at ? "L" : "M"}${(720 * at / last).toFixed(1)} ${(76 - 72 * value / top).toFixed(1)}`).join("");
  }

  function history(svg, points) {
    const top = Math.max(1, ...points.flat());
    svg.replaceChildren();
    [["work", 0], ["wait", 1]].forEach(([kind, column]) => {
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
      path.setAttribute("class", kind);
      path.setAttribute("d", line(points.map((point) => point[column]), top));
      svg.append(path);
    });
    svg.setAttribute("aria-label", `at most ${top} requests at once`);
  }

  function show(told) {
    text(get("status"), `${told.status}, version ${told.version}, ${told.endpoint}`);
    const names = new Set(told.routes.map((route) => route.name));
    for (const [name, element] of cards) {
      if (!names.has(name)) { element.remove(); cards.delete(name); }
    }
    for (const route of told.routes) {
      const element = card(route.name);
      text(element.querySelector("h2"), route.name);
      text(element.querySelector(".facts"), `${route.serving} of ${route.min} to ${route.max} instances, ${route.in_flight} of ${route.slots} slots in use, ${route.waiting} waiting, queue wait ${route.queue_wait} s, ${route.served} served, ${route.failed} failed; models: ${route.models.join(", ") || "not known yet"}`);
      const problem = element.querySelector(".problem");
      problem.hidden = !route.problem;
      text(problem, route.problem || "");
      element.querySelector("tbody").replaceChildren(...rows(route));
      history(element.querySelector(".history"), route.history || []);
    }
  }

  async function look() {
    const headers = key.get() ? { Authorization: `Bearer ${key.get()}` } : {};
    try {
      const answer = await fetch("api/status", { headers });
      if (answer.ok) show(await answer.json());
      else text(get("status"), answer.status === 401 ? "key needed" : `HTTP ${answer.status}`);
    } catch {
      text(get("status"), "not connected");
    }
    setTimeout(look, 2000);
  }

  get("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    key.set(get("key").value.trim());
    get("key").value = "";
  });
  look();
})();

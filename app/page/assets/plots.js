// The last hour, drawn by uPlot: a row of numbers every few seconds.

const KEPT = 720;
const COLOURS = 8;

function clock(seconds, step) {
  const text = new Date(1000 * seconds).toTimeString();
  return text.slice(0, step < 60 ? 8 : 5);
}

class Plots {
  constructor(box) {
    this.box = box;
    this.plots = [];
    this.columns = [];
    this.times = [];
    this.observer = new ResizeObserver((entries) => {
      for (const { target, contentRect } of entries) {
        target.chart?.setSize({ width: Math.max(200, Math.floor(contentRect.width)), height: 190 });
      }
    });
  }

  // `columns` of a row, each a plot's name and a series; `plots` in their order.
  setColumns(columns, plots) {
    for (const plot of this.plots) {
      this.observer.unobserve(plot.canvas);
      plot.chart.destroy();
    }
    this.box.replaceChildren();
    this.times = [];
    this.columns = columns.map(() => []);
    this.plots = plots.map((plot) => {
      const own = columns.flatMap(([name], index) => (name === plot.name ? [index] : []));
      // Of a single model the total would be a second line on the first one.
      const single = own.length === 2 ? own.filter((index) => columns[index][1] !== "total") : own;
      return { ...plot, indices: single, series: single.map((index) => columns[index][1]) };
    }).filter((plot) => plot.indices.length);
    for (const plot of this.plots) this.make(plot);
  }

  make(plot) {
    const { title, unit, sparse } = plot;
    plot.canvas = h("div", { className: "canvas", role: "img" });
    plot.legend = h("ul", { className: "legend" });
    plot.values = plot.series.map((series, index) => {
      const swatch = h("i");
      swatch.style.background = `var(--s${index % COLOURS})`;
      const value = h("b");
      plot.legend.append(h("li", {}, swatch, `${series} `, value));
      return value;
    });
    this.box.append(h("div", { className: "plot" }, h("h3", {}, unit ? `${title} (${unit})` : title), plot.canvas, plot.legend));
    const colour = (name) => () => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--grid"), width: 1 }, ticks: { show: false } };
    const short = (value) => (Math.abs(value) >= 1e4 ? `${+(value / 1e3).toPrecision(4)}k` : String(+value.toPrecision(4)));
    plot.chart = new uPlot({
      width: Math.max(200, Math.floor(plot.canvas.clientWidth || 400)), height: 190,
      legend: { show: false },
      cursor: { drag: { x: false, y: false } },
      scales: { y: { range: (_, low, high) => [Math.min(0, low ?? 0), (high ?? 0) > 0 ? high * 1.08 : 1] } },
      axes: [{ ...axis, space: 70, values: (_, ticks, __, ___, step) => ticks.map((tick) => clock(tick, step)) }, { ...axis, size: 52, values: (_, ticks) => ticks.map(short) }],
      series: [{}, ...plot.series.map((series, index) => ({
        label: series, stroke: colour(`--s${index % COLOURS}`), width: 1.75, spanGaps: sparse,
        points: { show: sparse, size: 4 },
      }))],
      hooks: { setCursor: [() => this.showValues(plot)] },
    }, [[], ...plot.series.map(() => [])], plot.canvas);
    plot.canvas.chart = plot.chart;
    this.observer.observe(plot.canvas);
  }

  setRows(rows) {
    this.times = rows.map((row) => row[0]);
    this.columns = this.columns.map((_, index) => rows.map((row) => row[index + 1]));
    this.draw();
  }

  addRow([time, ...values]) {
    this.times.push(time);
    this.columns.forEach((column, index) => column.push(values[index]));
    if (this.times.length > KEPT) {
      this.times.shift();
      for (const column of this.columns) column.shift();
    }
    if (!document.hidden) this.draw();
  }

  draw() {
    for (const plot of this.plots) {
      plot.chart.setData([this.times, ...plot.indices.map((index) => this.columns[index])]);
      this.showValues(plot);
    }
  }

  redraw() {
    for (const plot of this.plots) plot.chart.redraw(false, true);
  }

  // The values under the cursor; without a cursor the last ones.
  showValues(plot) {
    const at = plot.chart?.cursor.idx ?? this.times.length - 1;
    const said = plot.indices.map((index, number) => {
      const column = this.columns[index];
      const spanned = plot.chart?.cursor.idx == null ? column.findLast((value) => value !== null) : column[at];
      const text = spanned === null || spanned === undefined ? "–" : `${+spanned.toPrecision(4)}`;
      setText(plot.values[number], text);
      return `${plot.series[number]} ${text}`;
    });
    plot.canvas.setAttribute("aria-label", `${plot.title}, latest: ${said.join(", ")} ${plot.unit}`);
  }
}

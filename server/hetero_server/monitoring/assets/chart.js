// Curves over rounds, drawn by uPlot in the colours of the page; told apart by dashes too.

const HEIGHT = 260;
const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3], [14, 4], [5, 5]];
const SIGNS = ["━━", "╍╍", "┅┅", "━╸╺", "━ ━", "╺ ╺"]; // of the dashes, for the legend

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export function chart(box, empty) {
  let plot = null;
  let labels = "";
  let last = null;

  const width = () => Math.max(240, box.clientWidth);

  function build(series) {
    plot?.destroy();
    const axis = { stroke: style("--faint"), grid: { stroke: style("--line"), width: 1 }, ticks: { stroke: style("--line") } };
    plot = new uPlot(
      {
        width: width(),
        height: HEIGHT,
        scales: { x: { time: false } },
        axes: [{ ...axis, label: "round", labelSize: 20, size: 36 }, { ...axis, size: 48 }],
        series: [
          { label: "round" },
          ...series.map(({ label }, index) => ({
            label: `${label} ${SIGNS[index % SIGNS.length]}`,
            stroke: style(`--series-${1 + (index % 6)}`),
            width: index ? 1.5 : 2.5,
            dash: DASHES[index % DASHES.length],
            spanGaps: true,
            points: { size: 5 },
            value: (_, value) => (value === null || value === undefined ? "–" : value.toFixed(2)),
          })),
        ],
      },
      [[], ...series.map(() => [])],
      box,
    );
  }

  function show(curves) {
    last = curves;
    const { x, series } = curves;
    empty.hidden = x.length > 0;
    box.hidden = x.length === 0;
    if (!x.length) return;
    const wanted = series.map(({ label }) => label).join();
    if (wanted !== labels) {
      build(series);
      labels = wanted;
    }
    plot.setData([x, ...series.map(({ values }) => values)]);
    // Without a pointer over it, the legend tells the last values; uPlot empties it when it redraws.
    setTimeout(() => {
      if (plot.cursor.idx == null) plot.setLegend({ idx: plot.data[0].length - 1 });
    });
    box.dataset.points = x.length;
  }

  new ResizeObserver(() => plot?.setSize({ width: width(), height: HEIGHT })).observe(box);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    labels = "";
    if (last) show(last);
  });

  return { show };
}

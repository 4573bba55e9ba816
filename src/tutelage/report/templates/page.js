(() => {
  "use strict";
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const root = document.documentElement;
  const plots = [...document.querySelectorAll(".plot")];
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const fine = window.matchMedia("(pointer: fine)").matches;
  const PAPER = { alone: 660, beside: 322 }; // widths in print, as in page.css
  const MOST_CURVES = 16; // with more, further seeds are hidden at first
  let printing = false;

  // Names of the page's colors, wherever a color stands, become colors.
  function paint(value, key, css) {
    if (typeof value === "string") {
      const named = /color(scale)?$/.test(key) && /^var\((--[\w-]+)\)$/.exec(value);
      return named ? css.getPropertyValue(named[1]).trim() : value;
    }
    if (Array.isArray(value)) {
      return /color(scale)?$/.test(key) ? value.map((inner) => paint(inner, key, css)) : value;
    }
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([k, inner]) => [k, paint(inner, k, css)]));
  }

  const alone = (div) => div.closest(".figures").childElementCount === 1;

  function dressed(div) {
    const { data, layout } = figures[div.dataset.figure];
    const css = getComputedStyle(root);
    const color = (name) => css.getPropertyValue(name).trim();
    const axis = {
      automargin: true,
      gridcolor: color("--line"),
      linecolor: color("--line"),
      zerolinecolor: color("--control"),
      zeroline: false,
      ticks: "",
      tickfont: { color: color("--soft") },
      exponentformat: "SI",
    };
    const own = paint(layout, "", css);
    const titled = (given) => given && given.title
      ? { title: { font: { color: color("--soft"), size: 13 }, standoff: 10, ...given.title } } : {};
    const traces = data.map((trace) => paint({ ...trace, visible: isShown(div, trace) }, "", css));
    for (const trace of traces) {
      if (trace.colorbar) trace.colorbar = { tickfont: { color: color("--soft") }, ...trace.colorbar };
    }
    return {
      data: traces,
      layout: {
        ...own,
        ...(printing ? { width: alone(div) ? PAPER.alone : PAPER.beside, autosize: false } : { autosize: true }),
        xaxis: { ...axis, ...own.xaxis, ...titled(own.xaxis) },
        yaxis: { ...axis, ...own.yaxis, ...titled(own.yaxis) },
        font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: color("--ink") },
        margin: { l: 8, r: 12, t: 10, b: 8 },
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        showlegend: false,
        hovermode: "closest",
        hoverlabel: {
          bgcolor: color("--paper"),
          bordercolor: color("--control"),
          font: { color: color("--ink") },
          namelength: -1,
        },
        dragmode: fine ? "zoom" : false,
      },
    };
  }

  async function draw(div) {
    const { data, layout } = dressed(div);
    const config = { responsive: true, displayModeBar: false, displaylogo: false };
    await window.Plotly.react(div, data, layout, config);
    div.dataset.drawn = "yes";
  }

  // Which curves are shown: by name, and whether further seeds are.
  const hidden = new Map(plots.map((div) => [div, new Set()]));
  const furtherToo = new Map(plots.map((div) => {
    const { data } = figures[div.dataset.figure];
    return [div, data.length <= MOST_CURVES];
  }));

  function isFurther(trace) {
    return Boolean(trace.meta && trace.meta.further);
  }

  function isShown(div, trace) {
    if (isFurther(trace) && !furtherToo.get(div)) return false;
    return !hidden.get(div).has(trace.legendgroup);
  }

  const SHAPES = {
    circle: "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0Z",
    square: "M-3.5-3.5H3.5V3.5H-3.5Z",
    diamond: "M0-5 5 0 0 5-5 0Z",
    "triangle-up": "M0-4.5 4.5 3.5H-4.5Z",
    "triangle-down": "M0 4.5 4.5-3.5H-4.5Z",
    cross: "M-1.5-4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3Z",
    x: "M-4-2-2-4 0-2 2-4 4-2 2 0 4 2 2 4 0 2-2 4-4 2-2 0Z",
    star: "M0-5.5 1.4-1.8 5.2-1.7 2.2.7 3.2 4.4 0 2.3-3.2 4.4-2.2.7-5.2-1.7-1.4-1.8Z",
  };
  const DASHES = { dash: "5 3", dot: "1.5 2.5", dashdot: "5 2.5 1.5 2.5", longdash: "9 3" };

  function swatch(trace) {
    const space = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(space, "svg");
    svg.setAttribute("viewBox", "-14 -7 28 14");
    svg.setAttribute("aria-hidden", "true");
    const add = (path, stroke, fill) => {
      const element = document.createElementNS(space, "path");
      element.setAttribute("d", path);
      element.style.stroke = stroke;
      element.style.fill = fill;
      element.style.strokeWidth = "2";
      svg.append(element);
      return element;
    };
    const { line, marker, mode } = trace;
    if (line && mode.includes("lines")) {
      const drawn = add("M-13 0H13", line.color, "none");
      drawn.style.strokeDasharray = DASHES[line.dash] || "";
      drawn.style.strokeWidth = String(line.width || 2);
    }
    if (marker && mode.includes("markers")) {
      const [shape, open] = marker.symbol.split("-open");
      const drawn = add(SHAPES[shape] || SHAPES.circle, marker.color, open === undefined ? marker.color : "none");
      drawn.style.strokeWidth = "1.5";
    }
    return svg;
  }

  function toggle(label, mark, pressed, change) {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", String(pressed));
    if (mark) button.append(mark);
    button.append(label);
    button.addEventListener("click", () => {
      const now = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(now));
      change(now);
    });
    return button;
  }

  function addLegend(div) {
    const { data } = figures[div.dataset.figure];
    const groups = new Map();
    for (const trace of data) {
      if (trace.legendgroup !== undefined && !groups.has(trace.legendgroup)) groups.set(trace.legendgroup, trace);
    }
    const legend = div.parentElement.querySelector(".legend");
    const redraw = () => div.dataset.drawn && draw(div);
    for (const [name, trace] of groups) {
      legend.append(toggle(name, swatch(trace), true, (now) => {
        hidden.get(div)[now ? "delete" : "add"](name);
        redraw();
      }));
    }
    if (data.some(isFurther)) {
      legend.append(toggle("further seeds", swatch({ mode: "lines", line: { color: "var(--soft)", width: 1 } }), furtherToo.get(div), (now) => {
        furtherToo.set(div, now);
        redraw();
      }));
    }
    legend.hidden = legend.childElementCount === 0;
  }

  plots.forEach(addLegend);
  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting) {
        seen.unobserve(target);
        draw(target);
      }
    }
  }, { rootMargin: "300px" });
  plots.forEach((div) => seen.observe(div));

  const redrawAll = () => plots.filter((div) => div.dataset.drawn).forEach(draw);
  dark.addEventListener("change", redrawAll);

  // On paper everything is open, drawn, light, and as wide as the paper.
  let opened = [];
  window.addEventListener("beforeprint", () => {
    printing = true;
    root.classList.add("printing");
    opened = [...document.querySelectorAll("details:not(.numbers):not([open])")];
    opened.forEach((details) => { details.open = true; });
    plots.forEach(draw);
  });
  window.addEventListener("afterprint", () => {
    printing = false;
    root.classList.remove("printing");
    opened.forEach((details) => { details.open = false; });
    redrawAll();
  });
})();

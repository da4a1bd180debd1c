"use strict";

const data = JSON.parse(document.getElementById("curves").textContent);
const chart = document.getElementById("chart");
const nonce = document.currentScript.nonce;

// plotly.js lies in the page packed, and is unpacked by the browser itself.
async function loadPlotly() {
  const packed = document.getElementById("plotly").textContent;
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.nonce = nonce;
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

function option(value, text) {
  const made = document.createElement("option");
  made.value = value;
  made.textContent = text;
  return made;
}

function fillControls() {
  const groups = new Map();
  for (const metric of data.metrics) {
    if (!groups.has(metric.group)) {
      const group = document.createElement("optgroup");
      group.label = metric.group;
      groups.set(metric.group, group);
      document.getElementById("metric").append(group);
    }
    groups.get(metric.group).append(option(metric.id, metric.label));
  }
  for (const [i, axis] of data.axes.entries()) {
    const label = document.createElement("label");
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name: "axis", value: axis.id, checked: i === 0 });
    label.append(input, axis.label);
    document.getElementById("axis").append(label);
  }
}

// Names that show and hide their agents' lines.
function fillLegend() {
  for (const [agent, name] of data.agents.entries()) {
    const button = document.createElement("button");
    const seeds = Math.max(0, ...data.metrics.map((metric) => metric.agents[agent]?.seeds.length ?? 0));
    button.type = "button";
    button.className = `agent colour-${agent % 8}`;
    button.textContent = `${name} (${seeds} ${seeds === 1 ? "seed" : "seeds"})`;
    button.setAttribute("aria-pressed", "true");
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", `${button.getAttribute("aria-pressed") !== "true"}`);
      draw();
    });
    document.getElementById("legend").append(button);
  }
}

function isShown(agent) {
  return document.getElementById("legend").children[agent].getAttribute("aria-pressed") === "true";
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// Plotly reads some markup in names.
function plain(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

function tracesOf(lines, agent, axis, form, withSeeds) {
  const line = colour(`--c${agent % 8}`);
  const name = plain(data.agents[agent]);
  const shared = { type: "scatter", mode: "lines" };
  const alone = lines.seeds.length === 1;
  const band = lines.bands[axis];
  const traces = [];
  if (band) {
    const edge = { ...shared, x: band.x, line: { width: 0, color: line }, hoverinfo: "skip" };
    traces.push({ ...edge, y: band.low });
    traces.push({ ...edge, y: band.high, fill: "tonexty", fillcolor: `${line}22` });
  }
  for (const seed of lines.seeds) {
    const few = seed.y.length < 40 ? "lines+markers" : "lines";
    traces.push({
      ...shared,
      mode: alone ? few : "lines",
      x: data.xs[seed.x[axis]],
      y: seed.y,
      line: { color: line, width: alone ? 2.25 : 1 },
      marker: { size: 5 },
      opacity: alone ? 1 : 0.45,
      hoverinfo: alone || withSeeds ? "all" : "skip",
      hovertemplate: alone || withSeeds ? `%{y:${form}}<extra>${name}, seed ${seed.seed}</extra>` : undefined,
    });
  }
  if (band) {
    traces.push({
      ...shared,
      x: band.x,
      y: band.iqm,
      customdata: band.low.map((low, i) => [low, band.high[i]]),
      line: { color: line, width: 2.75 },
      hovertemplate: `%{y:${form}} (%{customdata[0]:${form}} to %{customdata[1]:${form}})<extra>${name}</extra>`,
    });
  }
  return traces;
}

function layoutOf(metric, axis) {
  const ink = colour("--ink");
  const lines = { gridcolor: colour("--line"), linecolor: colour("--line"), zerolinecolor: colour("--line") };
  const narrow = window.innerWidth < 640;
  return {
    autosize: true,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("--muted") },
    margin: { l: narrow ? 48 : 60, r: 12, t: 24, b: 48 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--muted"), activecolor: ink },
    hovermode: "x unified",
    hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--line"), font: { color: ink } },
    showlegend: false,
    xaxis: { ...lines, title: { text: axis.label, font: { size: 13 } }, rangemode: "tozero", exponentformat: "SI", automargin: true },
    yaxis: {
      ...lines,
      tickformat: metric.share ? ".0%" : undefined,
      range: metric.share ? [-0.02, 1.02] : undefined,
      exponentformat: "SI",
      automargin: true,
    },
    uirevision: `${metric.id} ${axis.id}`, // a zoom stays when colours change
  };
}

function draw() {
  const metric = data.metrics.find((one) => one.id === document.getElementById("metric").value);
  const axis = data.axes.find((one) => one.id === document.querySelector("#axis input:checked").value);
  const form = metric.share ? ".1%" : ".4~g";
  const shown = metric.agents.map((lines, agent) => (isShown(agent) ? lines : null));
  const seeds = shown.reduce((count, lines) => count + (lines?.seeds.length ?? 0), 0);
  const traces = shown.flatMap((lines, i) => (lines ? tracesOf(lines, i, axis.id, form, seeds <= 6) : []));
  const smoothed = metric.smoothed > 1 ? `running mean over ${metric.smoothed} log intervals` : "";
  const meaning = [metric.meaning, smoothed].filter(Boolean).join("; ");
  document.getElementById("meaning").textContent = meaning && meaning[0].toUpperCase() + meaning.slice(1);
  chart.setAttribute("aria-label", `${metric.label} over ${axis.label}`);
  const buttons = [["zoom2d", "pan2d", "resetScale2d", "toImage"]];
  const config = { responsive: true, displaylogo: false, modeBarButtons: buttons };
  return Plotly.react(chart, traces, layoutOf(metric, axis), config);
}

async function main() {
  if (!data.metrics.length) {
    chart.textContent = "Nothing to draw: no metric has a value yet.";
    return;
  }
  fillControls();
  fillLegend();
  try {
    await loadPlotly();
  } catch (error) {
    chart.textContent = `This browser cannot draw the curves (${error.message}); one from 2023 or later can.`;
    return;
  }
  document.getElementById("controls").addEventListener("change", draw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  await draw();
  chart.dataset.drawn = "true";
}

main();

"use strict";
// Optional comfort: a pointer line through all tracks and the value of every curve under it.
(function () {
  const timeline = document.querySelector(".tl");
  if (!timeline) return;
  const duration = Number(timeline.dataset.duration);
  const axis = timeline.querySelector(".axis .plot");
  const timeLabel = timeline.querySelector(".now-time");

  const tracks = Array.from(timeline.querySelectorAll(".track[data-decimals]"), function (track) {
    const svg = track.querySelector("svg.chart");
    if (!svg) return null;
    const height = svg.viewBox.baseVal.height;
    const low = Number(svg.dataset.y0), high = Number(svg.dataset.y1);
    const runs = Array.from(svg.querySelectorAll("polyline.main"), function (line) {
      return line.getAttribute("points").split(" ").map(function (pair) {
        const [x, y] = pair.split(",").map(Number);
        return [x / 1000, low + (1 - y / height) * (high - low)];
      });
    });
    const clipped = "clipped" in svg.dataset;
    const unit = svg.dataset.unit ? "\u202f" + svg.dataset.unit : "";
    return { runs: runs, unit: unit, top: clipped ? high : Infinity, decimals: Number(track.dataset.decimals), out: track.querySelector(".now") };
  }).filter(Boolean);

  function valueAt(runs, x) {
    for (const run of runs) {
      if (x < run[0][0] || x > run[run.length - 1][0]) continue;
      let low = 0, high = run.length - 1;
      while (high - low > 1) {
        const middle = (low + high) >> 1;
        if (run[middle][0] <= x) low = middle; else high = middle;
      }
      return x - run[low][0] <= run[high][0] - x ? run[low][1] : run[high][1];
    }
    return null;
  }

  function clock(seconds) {
    const tenths = Math.round(seconds * 10);
    const rest = tenths % 600;
    return Math.floor(tenths / 600) + ":" + String(Math.floor(rest / 10)).padStart(2, "0") + "." + (rest % 10);
  }

  function show(event) {
    const box = axis.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width;
    if (x < 0 || x > 1) return hide();
    timeline.style.setProperty("--x", x);
    timeline.classList.add("has-pointer");
    timeLabel.textContent = clock(x * duration);
    for (const track of tracks) {
      const value = valueAt(track.runs, x);
      track.out.textContent = value === null ? "–"
        : (value >= track.top ? "≥\u202f" : "") + value.toFixed(track.decimals).replace("-", "−") + track.unit;
    }
  }

  function hide() {
    timeline.classList.remove("has-pointer");
  }

  timeline.addEventListener("pointermove", show);
  timeline.addEventListener("pointerleave", hide);
})();

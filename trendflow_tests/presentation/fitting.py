"""Whether a page fits a window: measured by a browser, in a frame of the wanted width."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from trendflow_tests.presentation.headless import measured

# A window of a headless browser cannot be as narrow as a phone; srcdoc frames share the origin of the page around them.
_PROBE = """<!doctype html><body style="margin:0"><iframe id="f" style="width:{width}px;height:900px;border:0"
srcdoc="{page}"></iframe><script>
addEventListener("load", function () {{
  const doc = document.getElementById("f").contentDocument, view = document.getElementById("f").contentWindow;
  for (const item of doc.querySelectorAll("details")) item.open = true;
  const wide = [];
  for (const node of doc.querySelectorAll("body *")) {{
    const box = node.getBoundingClientRect();
    if (box.right > view.innerWidth + 1 && !node.closest(".scroll, .skip, .stack thead")) wide.push(node.className);
  }}
  const flat = [];
  for (const chart of doc.querySelectorAll("svg.chart")) {{
    const box = chart.getBoundingClientRect();
    if (box.width < 60 || box.height < 20) flat.push(chart.getAttribute("aria-label"));
  }}
  const out = {{ inner: view.innerWidth, scroll: doc.documentElement.scrollWidth, wide: wide, flat: flat }};
  document.body.innerHTML = "<pre id='out'></pre>";
  document.getElementById("out").textContent = JSON.stringify(out);
}});
</script></body>"""


def fit(browser: str, page: str, width: int, folder: Path) -> dict[str, Any]:
    """`inner` and `scroll` widths in pixels, classes of elements that stick out, and charts too small to see."""
    found: dict[str, Any] = measured(browser, _PROBE.format(width=width, page=html.escape(page)), folder)
    return found

"""Page and previews in a real browser: no sideways scrolling on a phone or a laptop, no script error, no request."""

from __future__ import annotations

import base64
import html
import re
from pathlib import Path

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.presentation.figure import WIDTH
from trendflow.presentation.previews import preview_for
from trendflow.presentation.report import render_report
from trendflow_tests.presentation.headless import measured
from trendflow_tests.presentation.synthetic import arrays_of, make_view

# Measures the report inside a frame of the wanted width: a window of a headless browser cannot be that narrow.
# The pointer event checks that the read-out script runs.
PROBE = """<!doctype html><body style="margin:0"><iframe id="f" style="width:{width}px;height:900px;border:0"
srcdoc="{page}"></iframe><script>
addEventListener("load", function () {{
  const doc = document.getElementById("f").contentDocument, view = document.getElementById("f").contentWindow;
  const wide = [];
  for (const node of doc.querySelectorAll("body *")) {{
    const box = node.getBoundingClientRect();
    const scrolls = node.closest(".strip, .scroll, .skip, .stack thead");
    if (box.right > view.innerWidth + 1 && !scrolls) wide.push(node.className);
  }}
  for (const item of doc.querySelectorAll("details")) item.open = true;
  const line = doc.querySelector(".tl"), plot = line.querySelector(".axis .plot").getBoundingClientRect();
  const at = {{ clientX: plot.left + plot.width / 2, clientY: plot.top + 5, bubbles: true }};
  line.dispatchEvent(new view.PointerEvent("pointermove", at));
  const out = {{ inner: view.innerWidth, scroll: doc.documentElement.scrollWidth, wide: wide,
    time: doc.querySelector(".now-time").textContent, now: doc.querySelector(".now").textContent,
    images: Array.from(doc.images, (image) => image.naturalWidth) }};
  document.body.innerHTML = "<pre id='out'></pre>";
  document.getElementById("out").textContent = JSON.stringify(out);
}});
</script></body>"""

PICTURES = """<!doctype html><body>{images}<pre id="out"></pre><script>
addEventListener("load", function () {{
  const widths = Array.from(document.images, (image) => image.naturalWidth);
  document.getElementById("out").textContent = JSON.stringify(widths);
}});
</script></body>"""


@pytest.fixture(scope="module")
def page() -> str:
    error = TrendFlowError("model_load_failed", "The engine refuses the weights of a_model_with_quite_a_long_name.")
    return render_report(make_view(errors={"core_face_landmarks": error}, warnings=("sampling_shortfall",)))


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_the_page_fits_its_window(browser: str, page: str, width: int, tmp_path: Path) -> None:
    # srcdoc frames share the origin of the page around them, which file:// frames do not.
    found = measured(browser, PROBE.format(width=width, page=html.escape(page)), tmp_path)
    assert found["inner"] == width
    assert found["scroll"] <= found["inner"]
    assert found["wide"] == []
    assert found["time"] == "0:15.0"
    assert re.fullmatch(r"[−0-9.]+", found["now"])
    assert min(found["images"]) > 0


def test_a_browser_draws_every_preview(browser: str, tmp_path: Path) -> None:
    arrays = arrays_of(30.0, (5.0, 20.0))
    previews = [preview for name in arrays for preview in preview_for(name, arrays[name], {"status": "ok"})]
    images = [f"<img src='data:{p.mime};base64,{base64.b64encode(p.data).decode()}'>" for p in previews]
    widths = measured(browser, PICTURES.format(images="".join(images)), tmp_path)
    assert widths == [WIDTH] * len(previews)
    assert len(widths) >= 7

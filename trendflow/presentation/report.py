"""The report of one run as one HTML file that needs nothing else: no network, no script, no font."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from trendflow.presentation import facts, pictures
from trendflow.presentation.headlines import headlines
from trendflow.presentation.pages import asset, render_page
from trendflow.presentation.run_view import RunView
from trendflow.presentation.texts import STATUS_TEXTS
from trendflow.presentation.timeline import make_axis
from trendflow.presentation.tracks import build_groups


def render_report(view: RunView) -> str:
    """The page as text. The same view gives the same bytes.

    Every value is escaped by the template; a content security policy forbids any request and any script but the one
    inside. Raises `artifact_validation_failed` when the page would exceed 3 MB.
    """
    return render_page("report.html.j2", _context(view))


def _context(view: RunView) -> dict[str, Any]:
    axis = make_axis(view)
    shots, shot_count = pictures.storyboard(view)
    script = asset("report.js")
    return {
        "run": view.run,
        "status": view.status,
        "status_text": STATUS_TEXTS[view.status],
        "header": facts.header_facts(view),
        "headlines": headlines(view),
        "notices": facts.notices(view),
        "axis": axis,
        "ticks": axis.labels() if axis else [],
        "groups": build_groups(view),
        "filmstrip": pictures.filmstrip(view),
        "shots": shots,
        "shot_count": shot_count,
        "gallery": pictures.gallery(view),
        "text_facts": facts.text_facts(view),
        "components": facts.component_rows(view),
        "models": facts.model_rows(view),
        "features": facts.feature_tables(view),
        "css": asset("report.css"),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
    }

"""The report of one run as one HTML file that needs nothing else: no network, no script, no font."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trendflow.contracts.errors import TrendFlowError
from trendflow.presentation import facts, pictures
from trendflow.presentation.headlines import headlines
from trendflow.presentation.run_view import RunView
from trendflow.presentation.texts import STATUS_TEXTS
from trendflow.presentation.timeline import make_axis
from trendflow.presentation.tracks import build_groups

MAX_BYTES = 3_000_000


def render_report(view: RunView) -> str:
    """The page as text. The same view gives the same bytes.

    Every value is escaped by the template; a content security policy forbids any request and any script but the one
    inside. Raises `artifact_validation_failed` when the page would exceed 3 MB.
    """
    page = _environment().get_template("report.html.j2").render(**_context(view))
    size = len(page.encode("utf-8"))
    if size > MAX_BYTES:
        raise TrendFlowError(
            "artifact_validation_failed", f"The report has {size} bytes; 3 MB is the limit.", size=size
        )
    return page


def _context(view: RunView) -> dict[str, Any]:
    axis = make_axis(view)
    shots, shot_count = pictures.storyboard(view)
    script = _asset("report.js")
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
        "css": _asset("report.css"),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
    }


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("trendflow.presentation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _asset(name: str) -> Markup:
    """A style sheet or script of the package; trusted, hence not escaped."""
    return Markup(files("trendflow.presentation").joinpath("templates", name).read_text("utf-8"))

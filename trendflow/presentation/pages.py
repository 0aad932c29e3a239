"""Pages as one HTML file that needs nothing else: templates, style sheets and the limit of their size."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trendflow.contracts.errors import TrendFlowError

MAX_BYTES = 3_000_000


def render_page(template: str, context: Mapping[str, Any]) -> str:
    """A template filled in; every value is escaped. Raises `artifact_validation_failed` beyond 3 MB."""
    page = _environment().get_template(template).render(**context)
    size = len(page.encode("utf-8"))
    if size > MAX_BYTES:
        raise TrendFlowError(
            "artifact_validation_failed", f"The report has {size} bytes; 3 MB is the limit.", size=size
        )
    return page


@cache
def asset(name: str) -> Markup:
    """A style sheet or script of the package; trusted, hence not escaped."""
    return Markup(files("trendflow.presentation").joinpath("templates", name).read_text("utf-8"))


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("trendflow.presentation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

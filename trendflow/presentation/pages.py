"""Pages as one HTML file that needs nothing else: templates, style sheets and the limit of their size."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trendflow.contracts.errors import TrendFlowError

MAX_BYTES = 3_000_000
_HERE = "trendflow.presentation"


def render_page(template: str, context: Mapping[str, Any], package: str = _HERE) -> str:
    """A template filled in; every value is escaped. Raises `artifact_validation_failed` beyond 3 MB.

    The template is one of `package`, which may build on the layout and the macros of this package.
    """
    page = _environment(package).get_template(template).render(**context)
    size = len(page.encode("utf-8"))
    if size > MAX_BYTES:
        raise TrendFlowError(
            "artifact_validation_failed", f"The report has {size} bytes; 3 MB is the limit.", size=size
        )
    return page


@cache
def asset(name: str, package: str = _HERE) -> Markup:
    """A style sheet or script of a package; trusted, hence not escaped."""
    return Markup(files(package).joinpath("templates", name).read_text("utf-8"))


@cache
def _environment(package: str) -> Environment:
    return Environment(
        loader=ChoiceLoader([PackageLoader(name) for name in dict.fromkeys((package, _HERE))]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

"""Which program trains, as one digest: a changed line that can alter a fitted value makes earlier runs other work."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from trendflow.contracts.source_digest import source_digest

_SHOWS_OR_STARTS = (
    "__main__.py",
    "assets.py",
    "cli.py",
    "commands.py",
    "compare.py",
    "definitions.py",
    "gate_texts.py",
    "model_card.py",
    "reuse.py",
    "rules.py",
    "run_checks.py",
    "steps.py",
)
"""Modules without a part in a fitted or measured value. What is not named here counts, so a new module does."""
_PREDICTS = ("boosters", "comparators", "encoding", "quantiles", "tree_ensemble")
"""Modules of `trendflow.inference` that training and forecasts share."""


@cache
def trainer_digest() -> str:
    """sha256 over the syntax of everything that divides, fits, forecasts and measures; reports play no role."""
    return source_digest(trainer_files())


def trainer_files() -> list[Path]:
    """The modules behind `trainer_digest`."""
    here = Path(__file__).resolve().parent
    own = [path for path in here.glob("*.py") if path.name not in _SHOWS_OR_STARTS]
    return [*own, *(here / "families").glob("*.py"), *(_source(f"trendflow.inference.{name}") for name in _PREDICTS)]


def _source(module: str) -> Path:
    found = find_spec(module)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(module)
    return Path(found.origin)

"""Which program trains, as one digest: a changed line that can alter a fitted value makes earlier runs other work."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from training import TRAINER_VERSION
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
_TELLS = (
    "leakage",
    "leakage_statistics",
    "table.columns",
    "table.feature_spec",
    "table.metadata_features",
    "table.reader",
    "targets",
)
"""Modules of `trendflow.dataset` that say what is a feature, a target, an age bucket or a leak."""


@cache
def trainer_digest() -> str:
    """sha256 over the syntax of all that reads, guards, divides, fits, forecasts and measures, not of reports."""
    return source_digest(trainer_files())


def code_version() -> str:
    """Version of the trainer and the start of its digest: short enough for a person, and other code is another one."""
    return f"{TRAINER_VERSION}+{trainer_digest()[:12]}"


def trainer_files() -> list[Path]:
    """The modules behind `trainer_digest`."""
    here = Path(__file__).resolve().parent
    own = [path for path in here.glob("*.py") if path.name not in _SHOWS_OR_STARTS]
    shared = [f"trendflow.inference.{name}" for name in _PREDICTS] + [f"trendflow.dataset.{name}" for name in _TELLS]
    return [*own, *(here / "families").glob("*.py"), *map(_source, shared)]


def _source(module: str) -> Path:
    found = find_spec(module)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(module)
    return Path(found.origin)

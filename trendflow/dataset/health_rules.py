"""The limits of feature health and the reasons that excuse a constant, read from the files beside this module."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.thresholds import load_thresholds
from trendflow.contracts.versioned_yaml import read_versioned

_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Limits:
    """Section `health` of `health_v1.yaml`, where each has its unit and provenance."""

    min_runs: float
    low_n: float
    least_rows: float
    top_value_share: float
    narrow_spread: float
    nan_rate: float
    nan_rate_increase: float
    duplicate_correlation: float
    ks_p: float
    ks: float
    psi: float
    psi_min_runs: float
    reproducible_std: float
    reproducible_share: float
    empty_share: float
    coverage: float


@dataclass(frozen=True)
class Rules:
    """Limits with the version of their file, and the registered reasons as pairs of pattern and sentence."""

    version: str
    limits: Limits
    constants: tuple[tuple[re.Pattern[str], str], ...] = ()

    def constant_reason(self, column: str) -> str | None:
        """Why a column may be constant, or None."""
        return next((reason for pattern, reason in self.constants if pattern.fullmatch(column)), None)


@cache
def load_rules() -> Rules:
    """The rules this release ships. Raises `config_invalid` when one of the files is not in order."""
    thresholds = load_thresholds(_HERE / "health_v1.yaml")
    return Rules(
        thresholds.version, thresholds.bind("health", Limits), _read_reasons(_HERE / "registered_reasons_v1.yaml")
    )


def _read_reasons(path: Path) -> tuple[tuple[re.Pattern[str], str], ...]:
    document, _ = read_versioned(path)
    try:
        return tuple((re.compile(pattern), str(reason)) for pattern, reason in document["constants"].items())
    except (KeyError, TypeError, AttributeError, re.error) as exc:
        raise TrendFlowError("config_invalid", f"{path.name} is no list of registered reasons.") from exc

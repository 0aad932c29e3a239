"""YAML files of reference data that ship with the program, each of a version that is the file's name."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import yaml

from trendflow.contracts.errors import TrendFlowError

FOLDER = Path(__file__).resolve().parents[1] / "components"
"""Where those of the components lie."""


def read_versioned(path: Path) -> tuple[dict[str, Any], str]:
    """The document and the sha256 of the file. Raises `config_invalid` unless it declares its name as `version`."""
    content = path.read_bytes()
    try:
        document = yaml.safe_load(content)
    except yaml.YAMLError as exc:
        raise TrendFlowError("config_invalid", f"{path.name} is no valid YAML.") from exc
    if not isinstance(document, dict) or document.get("version") != path.stem:
        raise TrendFlowError("config_invalid", f"{path.name} must declare version {path.stem!r}.")
    return document, hashlib.sha256(content).hexdigest()

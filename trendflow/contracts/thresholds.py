"""Dataset-fixed constants of the components, with where each value comes from.

Components are pure and open no file, so the constants are read once, here, when the program is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.versioned_yaml import FOLDER, read_versioned

_ENTRY_KEYS = {"value", "unit", "provenance"}


class _Dataclass(Protocol):
    """Any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


C = TypeVar("C", bound=_Dataclass)


@dataclass(frozen=True)
class Constant:
    """One constant with its unit and where its value comes from."""

    value: float
    unit: str
    provenance: str


@dataclass(frozen=True)
class Thresholds:
    """One version of the constants, by section and name."""

    version: str
    file_name: str
    sha256: str
    constants: Mapping[str, Mapping[str, Constant]]

    @property
    def sections(self) -> dict[str, dict[str, float]]:
        """`sections[component][constant]` is a number."""
        return {name: {key: constant.value for key, constant in body.items()} for name, body in self.constants.items()}

    @property
    def reference(self) -> dict[str, str]:
        """The `ComponentSpec.reference` of a component that reads these constants."""
        return {self.file_name: self.sha256}

    def bind(self, section: str, constants: type[C]) -> C:
        """The constants of `section` as the frozen dataclass `constants`.

        Raises `config_invalid` when the file and the dataclass do not name the same constants.
        """
        values = self.sections.get(section, {})
        wanted = {field.name for field in fields(constants)}
        if set(values) != wanted:
            raise TrendFlowError(
                "config_invalid",
                f"{self.file_name}: section {section!r} lacks {sorted(wanted - set(values))} "
                f"and has unknown {sorted(set(values) - wanted)}.",
            )
        return constants(**values)


def load_thresholds(path: Path) -> Thresholds:
    """Read and check one thresholds file. Raises `config_invalid`, naming the constant, on anything unexpected."""
    document, sha256 = read_versioned(path)
    constants = {
        name: {key: _constant(f"{path.name}: {name}.{key}", entry) for key, entry in _mapping(path.name, name, body)}
        for name, body in document.items()
        if name != "version"
    }
    return Thresholds(document["version"], path.name, sha256, constants)


def _mapping(file: str, name: str, body: Any) -> list[tuple[str, Any]]:
    if not isinstance(body, dict):
        raise TrendFlowError("config_invalid", f"{file}: section {name!r} must map constants to their entries.")
    return list(body.items())


def _constant(where: str, entry: Any) -> Constant:
    if not isinstance(entry, dict) or set(entry) != _ENTRY_KEYS:
        raise TrendFlowError("config_invalid", f"{where} needs exactly {sorted(_ENTRY_KEYS)}.")
    value = entry["value"]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TrendFlowError("config_invalid", f"{where} must have a number as value.")
    if not str(entry["provenance"]).strip():
        raise TrendFlowError("config_invalid", f"{where} must say where its value comes from.")
    return Constant(value, str(entry["unit"]), str(entry["provenance"]).strip())


THRESHOLDS = load_thresholds(FOLDER / "thresholds_v1.yaml")

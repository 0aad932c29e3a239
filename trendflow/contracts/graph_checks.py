"""Checked reading of `component_graph.yaml`: typed access to YAML that names the line of what is wrong.

Knows the closed keys of the file's small tables, but not how components depend on each other (`graph.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Any, cast

import yaml

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.vocab import RUNTIMES, Runtime
from trendflow.contracts.yaml_text import SafeLoader, error_line

AUDIO_FAMILIES = frozenset(
    {
        "asr",
        "chroma",
        "clap",
        "diarization",
        "emotion",
        "hpss",
        "key",
        "mel",
        "mfcc",
        "onset",
        "primary",
        "quality",
        "source_separation",
        "spectral",
        "tempo",
        "voice_quality",
    }
)
"""The audio windows a component may ask for; `trendflow.media.audio_windows` lays them out."""

POLICY_FLAGS = ("log_pii", "retain_raw_comments", "retain_raw_ocr_text", "retain_raw_transcript")
"""Text policy of a profile. Every flag is off unless the profile turns it on."""

# Kind of each value, and whether zero is a meaningful amount of it.
_RESOURCES: Mapping[str, tuple[type | tuple[type, ...], bool]] = {
    "gpu": (bool, True),
    "gpu_memory_per_task_mb": ((int, float), True),
    "cpu": ((int, float), False),
    "rss_mb": ((int, float), False),
    "timeout_s": ((int, float), False),
}

Lines = Mapping[str, tuple[Any, int]]
"""Mapping key → (lines of its value, line number)."""


def fault(line: int, message: str) -> TrendFlowError:
    """The error for what stands in `line` of the graph file."""
    return TrendFlowError("config_invalid", f"component_graph line {line}: {message}", line=line)


class Reader:
    """A YAML mapping with line numbers; every access raises `config_invalid` with the line when it finds a fault."""

    def __init__(self, value: Mapping[str, Any], lines: Lines, where: str, line: int) -> None:
        self.value, self.lines, self.where, self.line = value, lines, where, line
        self.seen: set[str] = set()

    def line_of(self, key: str) -> int:
        """Line of a key, or of the mapping when the key is missing."""
        return self.lines[key][1] if key in self.lines else self.line

    def key_lines(self) -> dict[str, int]:
        return {key: self.line_of(key) for key in self.value}

    def fail(self, message: str, key: str | None = None) -> TrendFlowError:
        return fault(self.line if key is None else self.line_of(key), f"{self.where}: {message}")

    def get(self, key: str, kind: type | tuple[type, ...], default: Any = ...) -> Any:
        """The value of `key`, which must be of `kind`; a bool is no number here."""
        self.seen.add(key)
        if key not in self.value:
            if default is ...:
                raise self.fail(f"{key!r} is missing.")
            return default
        found = self.value[key]
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(found, kinds) or (isinstance(found, bool) and bool not in kinds):
            raise self.fail(f"{key!r} has the wrong type {_type_name(found)}.", key)
        return found

    def child(self, key: str, default: Mapping[str, Any] | None = None) -> Reader:
        value = self.get(key, dict, ... if default is None else default)
        lines, line = self.lines.get(key, ({}, self.line))
        return Reader(value, lines, f"{self.where}.{key}" if self.where else key, line)

    def children(self) -> Iterator[tuple[str, Reader]]:
        for key in self.value:
            yield key, self.child(key)

    def strings(self) -> dict[str, str]:
        """The whole mapping, whose values must be strings."""
        return {key: str(self.get(key, str)) for key in self.value}

    def names(self, key: str, allowed: frozenset[str] | None = None) -> tuple[str, ...]:
        values = self.get(key, list)
        if not all(isinstance(value, str) for value in values) or len(set(values)) != len(values):
            raise self.fail(f"{key!r} must list distinct names.", key)
        unknown = set(values) - allowed if allowed is not None else set()
        if unknown:
            raise self.fail(f"{key!r} holds unknown {sorted(unknown)}.", key)
        return tuple(values)

    def choice(self, key: str, allowed: frozenset[str]) -> str:
        value = self.get(key, str)
        if value not in allowed:
            raise self.fail(f"{key!r} is {value!r}, not one of {sorted(allowed)}.", key)
        return str(value)

    def done(self) -> None:
        """Refuse keys that nobody read."""
        unknown = [key for key in self.value if key not in self.seen]
        if unknown:
            raise self.fail(f"unknown key {unknown[0]!r}.", unknown[0])


def read_document(text: str) -> Reader:
    """The root mapping of a YAML text.

    Raises `config_invalid` for text that is no YAML or no mapping, for a key that occurs twice (YAML readers keep the
    last one silently), for keys that are no plain strings and for values that contain themselves or cannot be read.
    """
    try:
        loader = SafeLoader(text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise fault(1, "the file must hold a mapping.")
        lines = _lines(node, ())
        value = loader.construct_document(node)
    except yaml.YAMLError as exc:
        raise fault(error_line(exc, text), "not valid YAML.") from exc
    return Reader(value, lines, "", 1)


def _lines(node: yaml.Node, above: tuple[yaml.Node, ...]) -> dict[str, tuple[Any, int]]:
    if any(node is outer for outer in above):
        raise fault(node.start_mark.line + 1, "a value contains itself.")
    above = (*above, node)
    if isinstance(node, yaml.ScalarNode):
        _check_scalar(node)
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _lines(item, above)
    if not isinstance(node, yaml.MappingNode):
        return {}
    found: dict[str, tuple[Any, int]] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.tag != "tag:yaml.org,2002:str":
            raise fault(line, "a key must be a plain string.")
        if key.value in found:
            raise fault(line, f"the key {key.value!r} occurs twice; first in line {found[key.value][1]}.")
        found[key.value] = (_lines(value, above), line)
    return found


def _check_scalar(node: yaml.ScalarNode) -> None:
    """Refuse what YAML takes for a date or a number by its looks and then cannot convert, like 2020-99-99."""
    try:
        yaml.SafeLoader("").construct_object(node)
    except ValueError as exc:
        raise fault(node.start_mark.line + 1, f"{node.value!r} looks like a date or number but is none.") from exc


def _type_name(value: Any) -> str:
    return "null" if isinstance(value, NoneType) else type(value).__name__


def read_resources(reader: Reader) -> dict[str, Any]:
    """`resources` of a component: `gpu` is a flag, the rest are finite amounts (cores, megabytes, seconds)."""
    for key, (kind, zero_allowed) in _RESOURCES.items():
        value = reader.get(key, kind, None)
        if value is None or kind is bool:
            continue
        if not math.isfinite(value) or value < 0 or (value == 0 and not zero_allowed):
            raise reader.fail(f"{key!r} must be a {'non-negative' if zero_allowed else 'positive'} number.", key)
    reader.done()
    return dict(reader.value)


def read_models(reader: Reader) -> tuple[dict[str, str], dict[str, Runtime]]:
    """Role → catalogue entry, and role → runtime where a profile wants another than the entry's own.

    A role is mapped by a name, or by `{entry: <name>, runtime: inprocess | triton}`.
    """
    entries: dict[str, str] = {}
    runtimes: dict[str, Runtime] = {}
    for role in reader.value:
        found = reader.get(role, (str, dict))
        if isinstance(found, str):
            entries[role] = found
            continue
        mapped = reader.child(role)
        entries[role] = str(mapped.get("entry", str))
        runtimes[role] = cast(Runtime, mapped.choice("runtime", RUNTIMES))
        mapped.done()
    return entries, runtimes


def read_policy(reader: Reader) -> dict[str, bool]:
    """The policy flags that a profile sets."""
    flags = {key: bool(reader.get(key, bool)) for key in POLICY_FLAGS if key in reader.value}
    reader.done()
    return flags

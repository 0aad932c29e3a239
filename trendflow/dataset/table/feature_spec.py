"""The feature specification: which columns of the runs and of the first snapshot a dataset offers to a model.

It is a YAML file of its own version. Its hash covers what it says and not how it is written, and enters the
fingerprint of every dataset built with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from trendflow.contracts.canonical import canonical_json, digest_of
from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.table.metadata_features import CATEGORICAL, METADATA_COLUMNS, TEMPORAL

SPEC_FILE = "feature_spec.yaml"
DEFAULT_SPEC = Path(__file__).resolve().parent / SPEC_FILE

_LISTS = (
    "components_excluded",
    "global_column_exclude",
    "snapshot0_fields",
    "temporal_fields",
    "embeddings",
    "id_columns",
    "target_columns",
    "mask_columns",
)
_KEYS = ("feature_spec_version", "components", *_LISTS, "leakage_policy")


MAX_TOLERANCE_MINUTES = 60
"""What is observed later than this after the first snapshot can be in no dataset, whatever its policy."""


@dataclass(frozen=True)
class LeakagePolicy:
    """Limits of the leakage guard. `reviewed` excuses columns from the statistical alarm, each with its reason."""

    tolerance_minutes: float
    alarm_spearman: float
    alarm_min_rows: int
    reviewed: Mapping[str, str]

    def __post_init__(self) -> None:
        in_time = 0 <= self.tolerance_minutes <= MAX_TOLERANCE_MINUTES
        if not (in_time and 0 < self.alarm_spearman <= 1 and self.alarm_min_rows > 1):
            raise TrendFlowError(
                "config_invalid", "The leakage policy allows at most 60 minutes and an alarm above 0 and at most 1."
            )
        if not all(isinstance(reason, str) and reason.strip() for reason in self.reviewed.values()):
            raise TrendFlowError("config_invalid", "A reviewed column of the leakage policy needs its reason in words.")


@dataclass(frozen=True)
class FeatureSpec:
    """A checked specification. `document` is what the file says."""

    document: Mapping[str, Any]
    leakage: LeakagePolicy

    @classmethod
    def load(cls, path: Path | None = None) -> FeatureSpec:
        """Read a file, by default the one that ships with the program. Raises `config_invalid`."""
        path = DEFAULT_SPEC if path is None else path
        try:
            document = yaml.safe_load(path.read_bytes())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
            raise TrendFlowError("config_invalid", f"The feature spec {path.name!r} cannot be read as YAML.") from exc
        return cls.from_document(document)

    @classmethod
    def from_document(cls, document: Any) -> FeatureSpec:
        """Check a document. Raises `config_invalid` with the first thing that is wrong."""
        if not isinstance(document, Mapping) or set(document) != set(_KEYS):
            raise _invalid(f"must hold exactly the keys {', '.join(_KEYS)}")
        if not isinstance(document["feature_spec_version"], str) or not document["feature_spec_version"]:
            raise _invalid("needs a feature_spec_version in words")
        for key in _LISTS:
            if not _texts(document[key]):
                raise _invalid(f"{key} must be a list of different names")
        _check_components(document["components"])
        for key, known in (("snapshot0_fields", METADATA_COLUMNS), ("temporal_fields", TEMPORAL)):
            unknown = sorted(set(document[key]) - set(known))
            if unknown:
                raise _invalid(f"{key} names {unknown[0]!r}, which no first snapshot has")
        return cls(document, _leakage_policy(document["leakage_policy"]))

    @property
    def version(self) -> str:
        return str(self.document["feature_spec_version"])

    @property
    def hash(self) -> str:
        """sha256 of the canonical JSON of the document."""
        return digest_of(self.document)

    @property
    def metadata_fields(self) -> tuple[str, ...]:
        """Chosen columns of the first snapshot and of time, sorted."""
        return tuple(sorted({*self.document["snapshot0_fields"], *self.document["temporal_fields"]}))

    @property
    def categorical(self) -> tuple[str, ...]:
        return tuple(name for name in self.metadata_fields if name in CATEGORICAL)

    @property
    def embeddings(self) -> tuple[str, ...]:
        return tuple(sorted(self.document["embeddings"]))

    @property
    def uses_content(self) -> bool:
        """Whether it takes anything from runs; without that the first snapshots are enough."""
        return bool(self.document["components"] or self.embeddings)

    def chooses(self, column: str, component: str) -> bool:
        """Whether a content column of `component` is taken."""
        found = next((entry for entry in self.document["components"] if entry["name"] == component), None)
        if found is None or component in self.document["components_excluded"]:
            return False
        patterns = (*self.document["global_column_exclude"], *found.get("column_exclude", ()))
        return not any(fnmatchcase(column, pattern) for pattern in patterns)

    def without_content(self) -> FeatureSpec:
        """The same choice of metadata, and nothing of any run."""
        return FeatureSpec({**self.document, "components": [], "embeddings": []}, self.leakage)

    def to_yaml(self) -> bytes:
        """The document in one form: keys sorted, comments gone, so that equal specs are equal files."""
        return yaml.safe_dump(
            json.loads(canonical_json(self.document)), sort_keys=True, allow_unicode=True, width=120
        ).encode()


def _check_components(components: Any) -> None:
    if not isinstance(components, list):
        raise _invalid("components must be a list")
    for entry in components:
        if not isinstance(entry, Mapping) or not set(entry) <= {"name", "column_exclude"} or "name" not in entry:
            raise _invalid("an entry of components has a name and may have a column_exclude")
        if not isinstance(entry["name"], str) or not _texts(entry.get("column_exclude", [])):
            raise _invalid("an entry of components has a name and a list of patterns")
    if len({entry["name"] for entry in components}) != len(components):
        raise _invalid("components names one twice")


def _leakage_policy(document: Any) -> LeakagePolicy:
    names = [field.name for field in fields(LeakagePolicy)]
    if not isinstance(document, Mapping) or set(document) != set(names):
        raise _invalid(f"leakage_policy must hold exactly the keys {', '.join(names)}")
    try:
        return LeakagePolicy(
            tolerance_minutes=float(document["tolerance_minutes"]),
            alarm_spearman=float(document["alarm_spearman"]),
            alarm_min_rows=int(document["alarm_min_rows"]),
            reviewed=dict(document["reviewed"]),
        )
    except (TypeError, ValueError) as exc:
        raise _invalid("leakage_policy holds a value of the wrong type") from exc


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value) and len(set(value)) == len(value)


def _invalid(what: str) -> TrendFlowError:
    return TrendFlowError("config_invalid", f"A feature spec {what}.")

"""A finished training run as something that predicts: files checked against the manifest, one path for every caller."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import yaml

from trendflow.contracts.canonical import sha256_hex
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import SchemaRegistry, validate_document
from trendflow.dataset.table.metadata_features import AGE
from trendflow.inference.boosters import Booster, load_booster
from trendflow.inference.comparators import LogLinear, velocity
from trendflow.inference.encoding import Encoding, numeric_column
from trendflow.inference.quantiles import FLOOR, METHOD, NAMES, Served, serve

MANIFEST, METRICS, SPEC = "training_run_manifest.json", "metrics.json", "feature_spec.yaml"
MANIFEST_SCHEMA = "training_run_manifest_v1"
BUNDLE_LINES = ("persistence", "loglinear", "loglinear_multivariate")
"""Comparators that are a fitted line."""


class HeadContributions(NamedTuple):
    """`values` [rows, features] + `base` [rows] = the point forecast before its floor, on the log1p scale."""

    names: tuple[str, ...]
    values: np.ndarray
    base: np.ndarray


@dataclass(frozen=True)
class _Head:
    name: str
    target: str
    horizon_days: int
    point: Booster
    quantiles: tuple[Booster, ...]
    offset: float
    lines: Mapping[str, LogLinear]


@dataclass(frozen=True)
class ModelBundle:
    """The models of one training run. `manifest`, `metrics`, `spec` are the documents of its folder."""

    manifest: Mapping[str, Any]
    metrics: Mapping[str, Any]
    spec: Mapping[str, Any]
    encoding: Encoding
    _heads: tuple[_Head, ...]

    @classmethod
    def read(cls, folder: Path, schemas: SchemaRegistry | None = None) -> ModelBundle:
        """Read and verify a training run folder.

        Raises `weights_missing` when a model file is absent or has another digest, `artifact_validation_failed` for a
        manifest that breaks its schema or another document that differs from it, `model_load_failed` for bytes that the
        library refuses, `model_spec_invalid` when its intervals were tested under another rule than `quantiles.serve`.
        """
        manifest = read_manifest(folder, schemas)
        if manifest["quantiles"]["method"] != METHOD:
            raise TrendFlowError(
                "model_spec_invalid", "The intervals of the model were made in another way than they are here."
            )
        metrics = _document(folder, METRICS, manifest["metrics_sha256"])
        spec = _document(folder, SPEC, manifest["feature_spec_sha256"])
        natural = manifest["loss"]["scale"] == "natural"
        heads = []
        for bundle in manifest["bundles"]:
            for entry in bundle["horizons"]:
                name = f"{bundle['target']}_{entry['name']}"
                quantiles = [entry["quantile_models"][level] for level in NAMES]
                heads.append(
                    _Head(
                        name=name,
                        target=bundle["target"],
                        horizon_days=int(entry["horizon_days"]),
                        point=_booster(folder, entry["model_path"], entry["sha256"], natural),
                        quantiles=tuple(_booster(folder, found["path"], found["sha256"], False) for found in quantiles),
                        offset=float(entry["conformal_offset"]),
                        lines={
                            line: LogLinear.from_dict(manifest["comparators"]["fitted"][name][line])
                            for line in BUNDLE_LINES
                        },
                    )
                )
        encoding = Encoding(
            tuple(manifest["feature_names"]),
            {name: tuple(levels) for name, levels in manifest["encoding"]["levels"].items()},
        )
        return cls(manifest, metrics, spec, encoding, tuple(heads))

    @property
    def heads(self) -> tuple[str, ...]:
        return tuple(head.name for head in self._heads)

    @property
    def synthetic(self) -> bool:
        return bool(self.manifest["synthetic"])

    def predict(self, table: pa.Table) -> dict[str, np.ndarray]:
        """Per head float64 [rows, 3]: p10 ≤ p50 ≤ p90 on the log1p scale of the growth, never below 0.

        No horizon lies below an earlier one of its target. `table` has the feature columns of a dataset. Raises
        `artifact_validation_failed` when one is missing.
        """
        return {name: found.quantiles for name, found in self.serve(table).items()}

    def serve(self, table: pa.Table) -> dict[str, Served]:
        """Per head what `predict` gives, and where it had to be put in order."""
        matrix = self.encoding.matrix(table)
        found: dict[str, Served] = {}
        for target in dict.fromkeys(head.target for head in self._heads):
            group = sorted((head for head in self._heads if head.target == target), key=lambda head: head.horizon_days)
            raw = [np.column_stack([booster.predict(matrix) for booster in head.quantiles]) for head in group]
            made = serve(raw, [head.offset for head in group])
            found |= {head.name: served for head, served in zip(group, made, strict=True)}
        return found

    def point(self, table: pa.Table) -> dict[str, np.ndarray]:
        """Per head float64 [rows]: the forecast under the loss of the training, on the log1p scale."""
        matrix = self.encoding.matrix(table)
        return {head.name: np.maximum(head.point.predict(matrix), FLOOR) for head in self._heads}

    def contributions(self, table: pa.Table) -> dict[str, HeadContributions]:
        """Per head what each feature adds to the point forecast; empty for a family without exact attribution."""
        matrix = self.encoding.matrix(table)
        found = {head.name: head.point.contributions(matrix) for head in self._heads}
        return {
            name: HeadContributions(self.encoding.features, shares.values, shares.base)
            for name, shares in found.items()
            if shares is not None
        }

    def comparators(self, table: pa.Table) -> dict[str, dict[str, np.ndarray]]:
        """Per head and comparator float64 [rows] on the log1p scale: `velocity` and the fitted lines."""
        age = numeric_column(table, AGE)
        return {
            head.name: {
                "velocity": velocity(numeric_column(table, f"x0_{head.target}"), age, head.horizon_days),
                **{name: line.predict(table) for name, line in head.lines.items()},
            }
            for head in self._heads
        }


def read_manifest(folder: Path, schemas: SchemaRegistry | None = None) -> dict[str, Any]:
    """The manifest of a training run folder, held against its schema. Raises `artifact_validation_failed`."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError) as exc:
        raise TrendFlowError(
            "artifact_validation_failed", f"The folder {folder.name!r} holds no readable training manifest."
        ) from exc
    problems = validate_document(schemas or SchemaRegistry.load(), MANIFEST_SCHEMA, manifest)
    if problems:
        raise TrendFlowError(
            "artifact_validation_failed", f"The training manifest of {folder.name!r} is invalid: {problems[0]}"
        )
    found: dict[str, Any] = manifest
    return found


def _booster(folder: Path, path: str, sha256: str, natural: bool) -> Booster:
    parts = PurePosixPath(path).parts
    if PurePosixPath(path).is_absolute() or ".." in parts:
        raise TrendFlowError("artifact_validation_failed", "A model path leaves the folder of its run.")
    try:
        data = (folder / path).read_bytes()
    except OSError as exc:
        raise TrendFlowError("weights_missing", f"The model file {path} cannot be read.", path=path) from exc
    # The bytes that were checked are the bytes that are loaded.
    if sha256_hex(data) != sha256:
        raise TrendFlowError("weights_missing", f"The model file {path} differs from its manifest.", path=path)
    return load_booster(path, data, natural)


def verified_file(folder: Path, name: str, sha256: str) -> bytes:
    """A file of a run folder with the digest its manifest states. Raises `artifact_validation_failed`."""
    try:
        data = (folder / name).read_bytes()
    except OSError as exc:
        raise TrendFlowError("artifact_validation_failed", f"{name} cannot be read.", name=name) from exc
    if sha256_hex(data) != sha256:
        raise TrendFlowError("artifact_validation_failed", f"{name} differs from the manifest.", name=name)
    return data


def _document(folder: Path, name: str, sha256: str) -> Mapping[str, Any]:
    data = verified_file(folder, name, sha256)
    document: Mapping[str, Any] = yaml.safe_load(data) if name.endswith(".yaml") else json.loads(data)
    return document

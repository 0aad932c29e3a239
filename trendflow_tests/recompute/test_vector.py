"""The feature vector, put together again from docs/components.md and the artifacts of the other components."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from trendflow_tests.recompute.compare import unit
from trendflow_tests.recompute.stored import XDIST_GROUP, StoredRun

pytestmark = pytest.mark.xdist_group(XDIST_GROUP)

STATISTICS = {
    "mean": np.nanmean,
    "std": np.nanstd,
    "min": np.nanmin,
    "max": np.nanmax,
    "p50": lambda values: np.nanpercentile(values, 50),
    "p90": lambda values: np.nanpercentile(values, 90),
}


def documented_columns(page: str, components: set[str]) -> Iterator[str]:
    """A regular expression for every column that the tables of these components promise, in no order."""
    for chapter in page.split("\n## ")[1:]:
        component = chapter.splitlines()[0]
        if component not in components:
            continue
        features = False
        for line in chapter.splitlines():
            if line.startswith("#### "):
                features = line == "#### Features"
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)]
            if not line.startswith("| `") or not any(cell.startswith("model_facing") for cell in cells):
                continue
            name = re.sub(r"<\w+>", "[a-z_]+", cells[1].split("`")[1])
            if features:
                yield f"{component}__{name}__value"
            elif (listed := re.search(r"in the vector: ([a-z0-9, ]+)", line)) is not None:
                yield from (f"{component}__{name}__{statistic}" for statistic in listed[1].strip().split(", "))


def test_columns_are_those_of_the_tables(finished: StoredRun, repo_root: Path) -> None:
    vector = finished.arrays("feature_vector")
    names, sources = vector["feature_names"].tolist(), set(vector["prov_component"].tolist())
    assert names == sorted(names)
    page = (repo_root / "docs" / "components.md").read_text(encoding="utf-8")
    patterns = list(documented_columns(page, sources))
    assert len(patterns) > 200
    undocumented = [name for name in names if not any(re.fullmatch(pattern, name) for pattern in patterns)]
    assert not undocumented
    # Families without a member in this release, like those of a prompt bank, are regular expressions.
    missing = [pattern for pattern in patterns if "[" not in pattern and pattern not in names]
    assert not missing


def test_values_are_those_of_the_components(finished: StoredRun) -> None:
    vector = finished.arrays("feature_vector")
    sources: dict[str, dict[str, np.ndarray]] = {}
    for position, name in enumerate(vector["feature_names"].tolist()):
        component = str(vector["prov_component"][position])
        key, statistic = name.removeprefix(f"{component}__").rsplit("__", 1)
        arrays = sources.setdefault(component, finished.arrays(component))
        if statistic == "value":
            known = arrays["feature_names"].tolist()
            # Bit for bit: both are stored in single precision.
            value = arrays["feature_values"][known.index(key)] if key in known else np.float32("nan")
        else:
            value = np.float32(STATISTICS[statistic](arrays[key].astype(np.float64)))
        stored = vector["feature_values"][position]
        assert np.isclose(stored, value, rtol=0 if statistic == "value" else 1e-6, atol=0, equal_nan=True), name
        assert bool(vector["feature_present_mask"][position]) == bool(np.isfinite(value)), name
    absent = set(finished.meta("feature_vector")["absent_features"])
    assert set(vector["feature_names"][~vector["feature_present_mask"]].tolist()) <= absent
    measured = {folder.name for folder in finished.results.iterdir() if folder.is_dir()}
    assert set(sources) == measured - {"feature_vector"}


def test_embeddings_and_provenance(finished: StoredRun) -> None:
    vector = finished.arrays("feature_vector")
    frames = finished.arrays("core_clip")["frame_embeddings"].astype(np.float64)
    np.testing.assert_allclose(vector["core_clip__embedding_mean"], frames.mean(axis=0), rtol=1e-6, atol=1e-8)
    dispersion = 1 - np.linalg.norm(unit(frames).mean(axis=0))
    column = vector["feature_names"].tolist().index("core_clip__embedding_dispersion__value")
    np.testing.assert_allclose(vector["feature_values"][column], dispersion, rtol=1e-5)
    for key, component, array in (
        ("clap_extractor__embedding", "clap_extractor", "embedding"),
        ("text_processor__primary_embedding", "text_processor", "primary_embedding"),
    ):
        np.testing.assert_array_equal(vector[key], finished.arrays(component)[array])
    for component in set(vector["prov_component"].tolist()):
        rows, meta = vector["prov_component"] == component, finished.meta(component)
        assert set(vector["prov_content_digest"][rows].tolist()) == {meta["content_digest"]}
        assert set(vector["prov_schema_version"][rows].tolist()) == {meta["schema_version"]}
        document = component == "text_processor"
        kinds = set(vector["prov_source_kind"][rows].tolist())
        assert kinds <= ({"document", "derived"} if document else {"media"})
        observed = set(vector["prov_observed_at"][rows].tolist())
        assert observed == ({"captured_at"} if document else {"publish_time"})

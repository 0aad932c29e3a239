"""Locks: a schema or a source that changes without a version bump is named, everything else is left in peace."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.package_data import data_path
from trendflow.contracts.schema import SchemaRegistry
from trendflow.contracts.schema_lock import check_schemas, check_sources, lock_schemas, lock_sources
from trendflow.contracts.source_digest import source_digest

VERSION = "core_clip_npz_v3"
Document = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A locked copy of the shipped schemas."""
    copy = tmp_path / "schemas"
    shutil.copytree(data_path("schemas"), copy)
    for lock in copy.glob("*.lock.json"):
        lock.unlink()
    lock_schemas(SchemaRegistry.load(copy))
    return copy


def edit(folder: Path, change: Callable[[Document], object], version: str = VERSION) -> SchemaRegistry:
    path = folder / f"{version}.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return SchemaRegistry.load(folder)


def test_the_shipped_schemas_are_in_order():
    assert check_schemas(SchemaRegistry.load()) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda doc: doc["fields"]["times_s"].update(dtype="float32"),
        lambda doc: doc["fields"]["times_s"].update(unit="ms"),
        lambda doc: doc["fields"]["frame_embeddings"].update(shape=["N", 512]),
        lambda doc: doc["fields"]["frame_embeddings"].update(finite=False),
        lambda doc: doc["fields"].pop("logit_scale"),
        lambda doc: doc["features"]["embedding_dispersion"].update(formula="something else"),
    ],
)
def test_a_change_of_meaning_needs_a_new_version(folder, change):
    assert check_schemas(edit(folder, change)) == [
        f"The schema {VERSION} changed without a version bump; give the change a new version."
    ]


def test_explanations_may_improve_at_any_time(folder):
    def improve(document: Document) -> None:
        document["description"] = "Better words."
        document["fields"]["times_s"].update(description="Better words.", consumers=["report"])

    assert check_schemas(edit(folder, improve)) == []
    reworded = edit(folder, lambda doc: doc["properties"]["profile"].update(description="Better."), "run_request_v1")
    assert check_schemas(reworded) == []


def test_a_property_called_description_is_not_an_explanation(folder):
    def add(document: Document) -> None:
        document["properties"]["description"] = {"type": "string"}

    assert check_schemas(edit(folder, add, "run_request_v1")) == [
        "The schema run_request_v1 changed without a version bump; give the change a new version."
    ]


def test_new_and_lost_schemas_are_named(folder):
    (folder / "core_clip_npz_v3.json").rename(folder / "core_clip_npz_v4.json")
    registry = edit(folder, lambda doc: doc.update(schema_version="core_clip_npz_v4"), "core_clip_npz_v4")
    problems = check_schemas(registry)
    assert len(problems) == 2
    assert "core_clip_npz_v3 is locked but its file is gone" in problems[0]
    assert "core_clip_npz_v4 is not locked" in problems[1]


def test_locking_adds_versions_but_keeps_released_ones(folder):
    registry = edit(folder, lambda doc: doc["fields"]["times_s"].update(unit="ms"))
    before = (folder / "versions.lock.json").read_bytes()
    with pytest.raises(TrendFlowError) as caught:
        lock_schemas(registry)
    assert caught.value.error_code == "config_invalid"
    assert (folder / "versions.lock.json").read_bytes() == before
    assert lock_schemas(registry, unreleased=[VERSION]) == [VERSION]
    assert check_schemas(registry) == []
    assert lock_schemas(registry) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda doc: doc["fields"]["times_s"].update(consumers=[]), "has no consumer"),
        (lambda doc: doc["fields"]["times_s"].update(colour="red"), "Additional properties"),
        (lambda doc: doc["fields"]["times_s"].update(range=[5, 1]), "ends are swapped"),
        (lambda doc: doc["fields"]["times_s"].update(index_of="X"), "an index of X"),
        (lambda doc: doc["fields"]["times_s"].update(tier="secret"), "tier"),
        (lambda doc: doc["fields"]["frame_embeddings"].update(order="increasing"), "not one-dimensional"),
        (lambda doc: doc["fields"]["frame_embeddings"].update(categorical=True), "categorical"),
        (lambda doc: doc["fields"]["frame_indices"].update(row_splits_of=["nothing"]), "splits ['nothing']"),
        (
            lambda doc: doc["fields"]["places365_topk_indices"].update(flatten=["mean"]),
            "labels, which have no mean",
        ),
        (lambda doc: doc["meta"]["required_keys"].remove("status"), "must be required"),
        (lambda doc: doc["meta"]["optional_keys"].append("mood"), "not in the contract"),
        (lambda doc: doc["meta"]["optional_keys"].append("status"), "required and optional at once"),
        (lambda doc: doc["features"]["embedding_dispersion"].update(range=[1, 0]), "ends are swapped"),
        (lambda doc: doc["fields"]["times_s"].update(row_splits_of=["frame_indices"], dtype="int64"), "must be named"),
        (lambda doc: doc["fields"]["times_s"].update(row_splits_of=["frame_indices"]), "which are int64"),
        (lambda doc: doc["fields"]["times_s"].update(increasing_in_rows=True), "without row_splits_of"),
        (lambda doc: doc["fields"]["times_s"].update(dtype="bool", flatten=["mean", "std"]), "to its mean only"),
        (lambda doc: doc["fields"].pop("feature_names"), "feature_names and feature_values"),
        (lambda doc: doc["features"]["prob_mean__quality_<class>"].update(pattern=".*"), "also covers"),
    ],
)
def test_bad_schemas_are_refused(folder, change, said):
    problems = check_schemas(edit(folder, change))
    assert any(said in problem and problem.startswith(VERSION) for problem in problems), problems


@pytest.mark.parametrize(
    "change",
    [
        lambda doc: doc.update(schema_version="core_clip_npz_v9"),  # the file is named otherwise
        lambda doc: doc.update(allow_extra_keys=True),
        lambda doc: doc.pop("fields"),
        lambda doc: doc["fields"]["times_s"].update(dtype="object"),
        lambda doc: doc["fields"]["times_s"].update(shape=["n"]),
        lambda doc: doc["features"]["prob_mean__quality_<class>"].update(pattern="("),
    ],
)
def test_files_that_are_no_schema_do_not_load(folder, change):
    with pytest.raises(TrendFlowError) as caught:
        edit(folder, change)
    assert caught.value.error_code == "config_invalid"


SOURCE = '''
"""Module."""
LIMIT = 3  # a comment


def measure(x):
    """Doc."""
    return x + LIMIT
'''


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda text: text.replace("# a comment", "# another"), True),
        (lambda text: text.replace('"""Doc."""', '"""New words."""'), True),
        (lambda text: text.replace('    """Doc."""\n', ""), True),
        (lambda text: text.replace('"""Module."""\n', "").replace("x + LIMIT", "(x\n            + LIMIT)"), True),
        (lambda text: text.replace("x + LIMIT", "x - LIMIT"), False),
        (lambda text: text.replace("LIMIT = 3", "LIMIT = 3.0"), False),
        (lambda text: text.replace("LIMIT = 3", "LIMIT = True"), False),
        (lambda text: text.replace("return x", "return 'x'"), False),
        (lambda text: text.replace("measure", "measured"), False),
    ],
)
def test_the_source_digest_sees_code_and_nothing_else(tmp_path, change, same):
    before = source_digest([write(tmp_path / "module.py", SOURCE)])
    after = source_digest([write(tmp_path / "module.py", change(SOURCE))])
    assert (before == after) is same


def test_the_source_digest_covers_every_file_in_any_order(tmp_path):
    first, second = write(tmp_path / "a.py", SOURCE), write(tmp_path / "_b.py", "X = 1\n")
    assert source_digest([first, second]) == source_digest([second, first])
    assert source_digest([first]) != source_digest([first, second])
    both = source_digest([first, second])
    write(second, "X = 2\n")
    assert source_digest([first, second]) != both


def test_a_changed_source_needs_a_new_producer_version(tmp_path):
    module = write(tmp_path / "loud.py", SOURCE)
    assert check_sources({"loud": ("1.0.0", [module])}, tmp_path) == [
        "The source of loud 1.0.0 is not pinned; run `trendflow schemas lock`."
    ]
    assert lock_sources({"loud": ("1.0.0", [module])}, tmp_path) == ["loud"]
    assert check_sources({"loud": ("1.0.0", [module])}, tmp_path) == []

    write(module, SOURCE.replace("+", "-"))
    changed = {"loud": ("1.0.0", [module])}
    assert check_sources(changed, tmp_path) == [
        "The source of loud changed but its producer_version is still 1.0.0; raise it."
    ]
    with pytest.raises(TrendFlowError, match="pinned producer_version"):
        lock_sources(changed, tmp_path)
    assert lock_sources({"loud": ("1.0.1", [module])}, tmp_path) == ["loud"]
    assert check_sources({"loud": ("1.0.1", [module])}, tmp_path) == []
    assert check_sources({}, tmp_path) == ["The lock pins loud, which is no component."]


def test_an_unreleased_component_may_be_pinned_again(tmp_path):
    module = write(tmp_path / "loud.py", SOURCE)
    lock_sources({"loud": ("1.0.0", [module])}, tmp_path)
    write(module, SOURCE.replace("+", "-"))
    assert lock_sources({"loud": ("1.0.0", [module])}, tmp_path, unreleased=["loud"]) == ["loud"]
    assert check_sources({"loud": ("1.0.0", [module])}, tmp_path) == []

"""The asset check: it must be able to fail, and a failure that is stored soundly must not count as damage."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trendflow.commands.run_notes import run_notes
from trendflow.components.base import ComponentInputs
from trendflow.contracts.artifact import Artifact
from trendflow.contracts.manifest import find_row
from trendflow.orchestration.checks import check_stored
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.runs import RunContext
from trendflow_tests.orchestration.probe import FEATURE, NAME, add_probe, value
from trendflow_tests.orchestration.runs import Execute, Submit

SEGMENTER = "segmenter"


@pytest.fixture
def run(deployment: Deployment, clip: Path, submit: Callable[..., Any], execute: Callable[..., Any]) -> RunContext:
    run: RunContext = submit(deployment, clip)
    execute(run, {SEGMENTER})
    return run


def node(run: RunContext, name: str = SEGMENTER) -> Any:
    return run.deployment.graph.components[name]


def test_a_good_result_passes(run: RunContext) -> None:
    found = check_stored(run, node(run))
    assert found.passed
    assert found.sound
    assert found.findings["outcome"] == "ok"


def test_a_flipped_byte_is_damage(run: RunContext) -> None:
    key = f"result_store/{run.run_path}/{SEGMENTER}/dense_signals.npz"
    data = bytearray(run.deployment.store.get(key))
    data[len(data) // 2] ^= 1
    run.deployment.store.put(key, bytes(data))
    found = check_stored(run, node(run))
    assert not found.passed
    assert not found.sound
    assert "dense_signals" in found.findings["schema"]


def test_a_result_of_another_run_is_damage(run: RunContext) -> None:
    manifest = run.manifest()
    manifest["run"]["config_hash"] = "0" * 64
    run.deployment.store.put(f"result_store/{run.run_path}/manifest.json", json.dumps(manifest).encode())
    found = check_stored(run, node(run))
    assert not found.sound
    assert "config_hash" in found.findings["identity"]


def test_a_missing_row_is_damage(run: RunContext) -> None:
    assert not check_stored(run, node(run, "core_clip")).sound


def test_a_failure_that_is_stored_in_order_fails_without_being_damage(
    deployment: Deployment, tmp_path: Path, submit: Callable[..., Any], execute: Callable[..., Any]
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"this is not a video.")
    run = submit(deployment, broken, video_id="a-broken-file")
    execute(run, {SEGMENTER})
    found = check_stored(run, node(run))
    assert not found.passed
    assert found.sound
    assert found.findings["outcome"].startswith("video_unreadable: ")


@pytest.mark.parametrize(("absent", "told"), [({}, True), ({FEATURE: "not switched on"}, False)])
def test_a_result_that_is_mostly_missing_names_its_arrays(
    deployment: Deployment,
    clip: Path,
    submit: Submit,
    execute: Execute,
    absent: dict[str, str],
    told: bool,
) -> None:
    """Unless all that is missing is absent by configuration, which says why."""

    def sparse(_: ComponentInputs) -> Artifact:
        return dataclasses.replace(value(float("nan")), meta={"absent_features": absent})

    add_probe(deployment, sparse)
    run = submit(deployment, clip)
    execute(run)
    row = find_row(run.manifest(), NAME)
    assert row is not None
    assert row["status"] == "ok"
    assert ("low_valid_ratio" in row["warnings"], row["notes"]) == (
        (True, "Mostly missing: feature_values.") if told else (False, None)
    )
    notes = dict(run_notes(run, run.manifest()))
    assert ("feature_values" in notes.get("low_valid_ratio", "")) == told

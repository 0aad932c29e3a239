"""The asset check: it must be able to fail, and a failure that is stored soundly must not count as damage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trendflow.orchestration.checks import check_stored
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.runs import RunContext

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

"""What runs measure of themselves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trendflow.commands.costs import costs
from trendflow.contracts.errors import TrendFlowError
from trendflow.orchestration.costs import record_costs
from trendflow.orchestration.deployment import Deployment
from trendflow.storage.cost_registry import ROOT, CostRegistry
from trendflow_tests.conftest import REPO
from trendflow_tests.orchestration.conftest import write_clip
from trendflow_tests.orchestration.runs import AUDIO, Execute, Submit, only, with_profile


def rows_of(deployment: Deployment) -> list[dict[str, Any]]:
    return CostRegistry(deployment.store, deployment.schemas).rows()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SYNTHETIC, long enough for a window of every audio family."""
    return write_clip(tmp_path_factory.mktemp("clip") / "synthetic_30s.mp4", seconds=30)


@pytest.fixture
def audio_deployment(deployment: Deployment) -> Deployment:
    with_profile(deployment, only(*AUDIO))
    return deployment


def test_computing_is_recorded_and_reuse_is_not(
    audio_deployment: Deployment, clip: Path, submit: Submit, execute: Execute
) -> None:
    run = submit(audio_deployment, clip)
    finished = execute(run)
    record_costs(run)
    rows = rows_of(audio_deployment)
    whole = {row["component"]: row for row in rows if row["component_part"] == "whole"}
    # Windows of loudness_extractor lie around sampled frames, which this profile has none of: no unit, no row.
    assert set(whole) == AUDIO - {"loudness_extractor"}
    for name, row in whole.items():
        assert row["latency_ms_per_unit"] * row["units"] == pytest.approx(
            finished[name].duration_ms, abs=0.01 * row["units"]
        )
        assert row["provenance"]["run_id"] == run.identity.run_id
        assert row["model_signature"] == finished[name].meta["model_signature"]
    assert whole["tempo_extractor"]["units"] == len(finished["tempo_extractor"].arrays["segment_start_sec"])
    assert whole["tempo_extractor"]["input_bucket"] != whole["segmenter"]["input_bucket"]

    again = submit(audio_deployment, clip)
    assert {found.origin for found in execute(again).values()} == {"cache"}
    record_costs(again)
    assert len(rows_of(audio_deployment)) == len(rows)


def test_phases_are_parts_of_the_whole(
    audio_deployment: Deployment, clip: Path, submit: Submit, execute: Execute
) -> None:
    run = submit(audio_deployment, clip)
    timings = execute(run)["tempo_extractor"].meta["stage_timings_ms"]
    record_costs(run)
    parts = {row["component_part"]: row for row in rows_of(audio_deployment) if row["component"] == "tempo_extractor"}
    assert set(parts) == {"whole", *(f"substep:{stage}" for stage in timings)}
    assert sum(row["latency_ms_per_unit"] for part, row in parts.items() if part != "whole") <= (
        parts["whole"]["latency_ms_per_unit"] + 1e-3
    )


def test_a_registry_that_refuses_fails_no_run(
    audio_deployment: Deployment, clip: Path, submit: Submit, execute: Execute, caplog: pytest.LogCaptureFixture
) -> None:
    run = submit(audio_deployment, clip)
    execute(run)
    run.costs[0]["units"] = -1
    record_costs(run)
    assert rows_of(audio_deployment) == []
    assert "were not stored: artifact_validation_failed" in caplog.text


def test_rows_are_never_changed(audio_deployment: Deployment, clip: Path, submit: Submit, execute: Execute) -> None:
    run = submit(audio_deployment, clip)
    execute(run)
    registry = CostRegistry(audio_deployment.store, audio_deployment.schemas)
    at = "2026-01-02T03:04:05.678Z"
    key = registry.append(run.costs, run_id="r1", at=at)
    assert registry.append(run.costs, run_id="r1", at=at) == key  # a repeated request after an unclear answer
    with pytest.raises(TrendFlowError, match="stored already"):
        registry.append(run.costs[:1], run_id="r1", at=at)


def test_the_newest_executions_are_read_first(
    audio_deployment: Deployment, clip: Path, submit: Submit, execute: Execute
) -> None:
    run = submit(audio_deployment, clip)
    execute(run)
    registry = CostRegistry(audio_deployment.store, audio_deployment.schemas)
    times = ["2026-01-02T03:04:05.678Z", "2026-01-02T03:04:05.679Z", "2025-12-31T23:59:59.999Z"]
    for number, at in enumerate(times):
        registry.append([{**run.costs[0], "valid_from": at}], run_id=f"r{number}", at=at)
    assert [row["valid_from"] for row in registry.rows(max_objects=2)] == [times[1], times[0]]
    assert [row["valid_from"] for row in registry.rows()] == [times[1], times[0], times[2]]


def test_an_unreadable_object_is_named(audio_deployment: Deployment) -> None:
    audio_deployment.store.put(f"{ROOT}/2026-01-01/000000000_r.json", json.dumps({"rows": []}).encode())
    with pytest.raises(TrendFlowError, match=r"000000000_r\.json is not valid"):
        rows_of(audio_deployment)


# Alone in its process: among others, whatever they free in between would count.
PEAK_OF_100_MB = """
import numpy as np
from trendflow.orchestration.costs import PeakRss
with PeakRss() as before:
    pass
with PeakRss() as memory:
    np.full(100_000_000, 1, np.uint8)
print(before.peak_mb, memory.peak_mb)
"""


def test_the_peak_counts_what_was_freed_again() -> None:
    command = [sys.executable, "-c", PEAK_OF_100_MB]
    before, peak = subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPO).stdout.split()
    if "None" in (before, peak):
        pytest.skip("this kernel does not reset the peak of a process")
    assert 90 < float(peak) - float(before) < 160


def test_a_component_that_nobody_knows_is_a_mistake_and_one_without_measurements_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRENDFLOW_HOME", str(tmp_path))
    with pytest.raises(TrendFlowError, match=r"There is no component 'core_clipp'\.") as caught:
        costs("core_clipp", False, False)
    assert caught.value.error_code == "config_invalid"
    assert costs("core_clip", False, False) == 0
    assert "No costs of core_clip are known." in capsys.readouterr().err


def test_rows_of_other_code_and_other_models_are_told_apart(
    audio_deployment: Deployment,
    clip: Path,
    submit: Submit,
    execute: Execute,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = submit(audio_deployment, clip)
    execute(run)
    row = next(row for row in run.costs if (row["component"], row["component_part"]) == ("tempo_extractor", "whole"))
    registry = CostRegistry(audio_deployment.store, audio_deployment.schemas)
    changed = [row, {**row, "producer_version": "9.9.9"}, {**row, "model_signature": "ab" * 32}]
    registry.append(changed, run_id="r1", at="2026-01-02T03:04:05.678Z")
    monkeypatch.setenv("TRENDFLOW_STORE_URL", audio_deployment.settings.resolved_store_url)
    assert costs("tempo_extractor", False, False) == 0
    lines = [line.split()[:3] for line in capsys.readouterr().out.splitlines()[1:]]
    version = str(row["producer_version"])
    assert sorted(lines) == sorted(
        ["tempo_extractor", *told] for told in ((version, "–"), ("9.9.9", "–"), (version, "abababab"))
    )
    assert costs("tempo_extractor", False, True) == 0
    found = json.loads(capsys.readouterr().out)
    assert {estimate["producer_version"] for estimate in found} == {version, "9.9.9"}

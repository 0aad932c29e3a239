"""What becomes of a run when something in it fails: required, optional, skipped, interrupted, damaged."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.graph import ProfileComponent
from trendflow.contracts.manifest import find_row
from trendflow.orchestration import metadata
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.runs import open_run, view_run
from trendflow.orchestration.wrapper import finalise, run_status
from trendflow_tests.orchestration.runs import (
    AUDIO,
    Execute,
    Here,
    Submit,
    breaking,
    fewer_pictures,
    only,
    optional,
    problems,
    statuses,
    submit_file,
    with_profile,
)


def test_a_profile_with_fewer_components_runs_what_it_enables_and_closes(
    deployment: Deployment, clip: Path, submit: Submit, here: Here
) -> None:
    with_profile(deployment, only("segmenter", "cut_detection", "loudness_extractor"))
    run = submit(deployment, clip)
    assert here(run) == "success"
    assert set(statuses(run)) == {"segmenter", "cut_detection", "loudness_extractor"}
    manifest = run.manifest()
    assert manifest["run"]["finished_at"]
    assert manifest["run"]["skipped"] == []
    row = find_row(manifest, "cut_detection")
    assert row is not None
    meta = deployment.results.read_artifact(run.run_path, "cut_detection").meta
    assert any("jump" in name for name in meta["absent_features"]), "what needs core_clip must be absent with a reason"


def test_an_optional_failure_is_recorded_and_its_dependants_are_skipped_or_go_on(
    deployment: Deployment,
    clip: Path,
    submit: Submit,
    here: Here,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_profile(deployment, only("segmenter", "core_object_detections", "core_face_landmarks", "cut_detection"))
    with_profile(deployment, optional("core_object_detections", "core_face_landmarks"))
    breaking(deployment, monkeypatch, "core_object_detections", TrendFlowError("out_of_memory", "Batch 1 failed."))
    run = submit(deployment, clip)
    assert here(run) == "success"
    manifest = run.manifest()
    found = statuses(run)
    assert found["core_object_detections"] == "error"
    assert found["cut_detection"] == "ok", "a soft dependant goes on"
    assert "core_face_landmarks" not in found
    because = {entry["name"]: entry["because"] for entry in manifest["run"]["skipped"]}
    assert because == {"core_face_landmarks": "core_object_detections failed with out_of_memory"}
    assert "partial_failure" in manifest["run"]["warnings"]
    assert run_status(run, manifest) == "success"
    assert problems(deployment, run.run_path) == []


def test_a_required_failure_stops_the_run_and_a_second_attempt_repairs_it(
    deployment: Deployment,
    clip: Path,
    submit: Submit,
    here: Here,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_profile(deployment, fewer_pictures(8, 12))
    run = submit(deployment, clip)
    with monkeypatch.context() as patch:
        breaking(deployment, patch, "core_clip", TrendFlowError("model_load_failed", "The engine refuses the weights."))
        assert here(run) == "error"
    manifest = run.manifest()
    assert statuses(run)["core_clip"] == "error"
    assert {entry["because"] for entry in manifest["run"]["skipped"]} == {"core_clip failed with model_load_failed"}
    with DagsterInstance.get() as instance:
        (record,) = instance.get_run_records()
        assert record.dagster_run.tags["trendflow/error_code"] == "model_load_failed"

    assert here(run) == "success"
    manifest = run.manifest()
    assert set(statuses(run)) == {node.name for node in run.enabled}
    assert manifest["run"]["skipped"] == []
    assert run_status(run, manifest) == "success"
    assert find_row(manifest, "segmenter")["cache_hit"] is False


def test_a_result_that_cannot_be_stored_becomes_an_error_row(
    deployment: Deployment,
    clip: Path,
    submit: Submit,
    here: Here,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_profile(deployment, only(*AUDIO))
    with_profile(deployment, optional("tempo_extractor"))
    real = deployment.results.write_or_adopt

    def failing(run_path: str, component: str, stem: str, arrays: Any, meta: Any) -> Any:
        if component == "tempo_extractor" and meta["status"] != "error":
            raise OSError(28, "No space left on device", "/a/path/that/must/not/be/stored")
        return real(run_path, component, stem, arrays, meta)

    monkeypatch.setattr(deployment.results, "write_or_adopt", failing)
    run = submit(deployment, clip)
    assert here(run) == "success"
    row = find_row(run.manifest(), "tempo_extractor")
    assert row is not None
    assert (row["status"], row["error_code"]) == ("error", "storage_unavailable")
    assert "/a/path" not in str(run.manifest())


def test_a_preview_that_cannot_be_drawn_costs_nothing_but_the_picture(
    deployment: Deployment,
    clip: Path,
    submit: Submit,
    here: Here,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[object] = []

    def broken(component: str, *arguments: object) -> None:
        asked.append(component)
        raise RuntimeError("a plotting bug")

    monkeypatch.setattr(metadata, "preview_for", broken)
    with_profile(deployment, only(*AUDIO))
    run = submit(deployment, clip)
    assert here(run) == "success"
    assert set(asked) == AUDIO


def test_a_forced_run_still_proves_that_decoding_is_deterministic(
    deployment: Deployment,
    clip: Path,
    submit: Submit,
    execute: Execute,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from trendflow.orchestration import segmenter_step

    execute(submit(deployment, clip), {"segmenter"})
    real = segmenter_step.segment

    def drifting(*arguments: Any, **options: Any) -> Any:
        found = real(*arguments, **options)
        arrays = dict(found.artifact.arrays)
        arrays["segment_center_sec"] = arrays["segment_center_sec"] + 0.001
        return dataclasses.replace(found, artifact=dataclasses.replace(found.artifact, arrays=arrays))

    monkeypatch.setattr(segmenter_step, "segment", drifting)
    forced = execute(submit(deployment, clip, force=True), {"segmenter"})["segmenter"]
    assert forced.meta["error_code"] == "artifact_validation_failed"


def test_old_runs_can_be_looked_at_after_the_profile_changed_and_the_request_expired(
    deployment: Deployment, clip: Path, submit: Submit, execute: Execute
) -> None:
    run = submit(deployment, clip)
    execute(run, {"segmenter"})
    key = run.identity.partition_key

    def thinner(components: dict[str, ProfileComponent]) -> None:
        del components["tempo_extractor"]

    with_profile(deployment, thinner)
    with pytest.raises(TrendFlowError) as caught:
        open_run(deployment, key)
    assert caught.value.error_code == "config_invalid"
    deployment.store.delete_prefix(f"state/{run.run_path}")
    assert find_row(view_run(deployment, key).manifest(), "segmenter") is not None


def test_a_submission_that_died_half_way_can_be_repeated(deployment: Deployment, clip: Path, submit: Submit) -> None:
    run = submit(deployment, clip)
    deployment.store.delete(f"result_store/{run.run_path}/manifest.json")
    again = submit_file(deployment, clip, run.identity.video_id, run_id=run.identity.run_id)
    assert again.manifest()["run"]["run_id"] == run.identity.run_id


def test_a_source_that_changed_under_a_run_is_refused(
    deployment: Deployment, clip: Path, other_clip: Path, tmp_path: Path, submit: Submit, execute: Execute
) -> None:
    source = tmp_path / "source.mp4"
    source.write_bytes(clip.read_bytes())
    run = submit(deployment, source)
    execute(run, {"segmenter"})
    source.write_bytes(other_clip.read_bytes())
    assert execute(run, {"segmenter"})["segmenter"].meta["error_code"] == "input_constraint_violated"


def test_the_warnings_of_a_failed_attempt_do_not_outlive_it(
    deployment: Deployment, clip: Path, submit: Submit, execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_profile(deployment, optional("tempo_extractor"))
    run = submit(deployment, clip)
    with monkeypatch.context() as patch:
        breaking(deployment, patch, "tempo_extractor", RuntimeError("x"))
        execute(run, {"segmenter", "loudness_extractor", "tempo_extractor"})
    assert "partial_failure" in finalise(run)["run"]["warnings"]
    execute(run, {"segmenter", "loudness_extractor", "tempo_extractor"})
    assert "partial_failure" not in finalise(run)["run"]["warnings"]

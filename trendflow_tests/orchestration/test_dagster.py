"""The asset graph as Dagster sees it: structure, one whole run, and a backfill launched through GraphQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import AssetKey, DagsterInstance

from trendflow.contracts.identity import split_partition_key
from trendflow.contracts.keys import data_version
from trendflow.contracts.manifest import content_digests
from trendflow.dataset.health_checks import CHECKS
from trendflow.definitions import defs, load_job
from trendflow.orchestration.dataset_checks import RULES
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.document_input import providing
from trendflow.orchestration.launch import process_here
from trendflow_tests.orchestration.command_line import Cli
from trendflow_tests.orchestration.dagster_server import NODES, DagsterServer, running_server
from trendflow_tests.orchestration.runs import TEXT, Submit, write_graph, write_quick_graph

REPO = Path(__file__).resolve().parents[2]


# Asset → the assets it is made from, as component_graph.yaml ships them. Soft dependencies are edges too; one on a
# component that no release provides yet is none.
COMPONENT_EDGES = {
    "segmenter": set(),
    "core_clip": {"segmenter"},
    "core_depth_midas": {"segmenter"},
    "core_optical_flow": {"segmenter"},
    "core_object_detections": {"segmenter"},
    "core_face_landmarks": {"segmenter", "core_object_detections"},
    "cut_detection": {
        *("segmenter", "core_clip", "core_optical_flow", "core_object_detections", "core_face_landmarks"),
    },
    "scene_classification": {"segmenter", "core_clip", "cut_detection"},
    "shot_quality": {
        *("segmenter", "core_clip", "core_depth_midas", "core_object_detections", "core_face_landmarks"),
        "cut_detection",
    },
    "story_structure": {"segmenter", "core_clip", "core_optical_flow", "core_face_landmarks", "cut_detection"},
    "uniqueness": {"segmenter", "core_clip"},
    "optical_flow": {"segmenter", "core_optical_flow"},
    "video_pacing": {"segmenter", "core_clip", "core_optical_flow", "cut_detection"},
    "loudness_extractor": {"segmenter"},
    "clap_extractor": {"segmenter"},
    "tempo_extractor": {"segmenter"},
    "text_processor": {"segmenter"},
}
COMPONENT_EDGES["feature_vector"] = set(COMPONENT_EDGES)
EDGES = {
    **COMPONENT_EDGES,
    "run_manifest": set(COMPONENT_EDGES),
    "run_report": {"run_manifest"},
    "feature_health": {"feature_vector"},
    "collected_snapshots": set(),
    "snapshots": {"collected_snapshots"},
    "targets": {"snapshots"},
    "channel_enrichment": {"snapshots"},
    "feature_table": {"feature_vector", "snapshots", "channel_enrichment"},
    "training_dataset": {"feature_table", "targets"},
    "prediction": {"feature_vector", "snapshots"},
    "alarms": set(),
}


def test_the_asset_graph_is_that_of_the_components_of_all_profiles() -> None:
    graph = defs.resolve_asset_graph()
    found = {
        key.path[-1]: {parent.path[-1] for parent in graph.get(key).parent_keys} for key in graph.get_all_asset_keys()
    }
    assert found == EDGES


def test_assets_describe_their_components(deployment: Deployment) -> None:
    graph = defs.resolve_asset_graph()
    for name, node in deployment.graph.components.items():
        asset = graph.get(AssetKey(name))
        assert asset.code_version is not None
        assert node.schema_version in asset.code_version
        assert asset.group_name == node.stage
        assert asset.description == node.description
        assert asset.owners
        assert asset.kinds
    checks = {(key.asset_key.path[-1], key.name) for key in graph.asset_check_keys}
    health = {("feature_health", check.name) for check in CHECKS}
    dataset = {("training_dataset", rule) for rule in RULES}
    assert checks == {(name, "valid") for name in COMPONENT_EDGES} | health | dataset


def test_a_run_records_versions_checks_and_metadata(
    deployment: Deployment,
    clip: Path,
    submit: Submit,
    dagster_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = write_quick_graph(tmp_path / "component_graph.yaml")
    monkeypatch.setenv("TRENDFLOW_GRAPH_FILE", str(graph))
    vars(deployment)["settings"] = deployment.settings.model_copy(update={"graph_file": graph})
    run = submit(deployment, clip, document=TEXT)
    job = load_job()
    with providing(run, TEXT):
        assert process_here(job, run.identity.partition_key) == "success"
    manifest = run.manifest()
    assert {row["name"] for row in manifest["components"]} == {node.name for node in run.enabled}
    assert manifest["run"]["finished_at"]
    with DagsterInstance.get() as instance:
        for row in manifest["components"]:
            event = instance.get_latest_materialization_event(AssetKey(row["name"]))
            assert event is not None
            assert event.asset_materialization is not None
            found = event.asset_materialization
            assert found.partition == run.identity.partition_key
            assert found.metadata["content_digest"].value == row["artifacts"][0]["content_digest"]
            assert found.tags is not None
            assert found.tags["dagster/data_version"] == data_version(content_digests(row))
    report = deployment.store.get(f"render_cache/{run.run_path}/report.html").decode()
    assert run.identity.run_id in report

    again = submit(deployment, clip, document=TEXT)
    assert process_here(job, again.identity.partition_key) == "success"
    assert all(row["cache_hit"] for row in again.manifest()["components"])


def test_a_broken_file_fails_its_run_with_a_code_and_skips_the_rest(
    deployment: Deployment, tmp_path: Path, submit: Submit, dagster_home: Path
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"this is not a video.")
    run = submit(deployment, broken, video_id="a-broken-file")
    assert process_here(load_job(), run.identity.partition_key) == "error"
    manifest = run.manifest()
    assert [(row["name"], row["error_code"]) for row in manifest["components"]] == [("segmenter", "video_unreadable")]
    skipped = {entry["name"] for entry in manifest["run"]["skipped"]}
    assert skipped == {node.name for node in run.enabled} - {"segmenter"}
    with DagsterInstance.get() as instance:
        (record,) = instance.get_run_records()
        assert record.dagster_run.tags["trendflow/error_code"] == "video_unreadable"
    stored = [info.key for info in deployment.store.list(f"result_store/{run.run_path}/")]
    assert {key.rpartition("/")[2] for key in stored} == {"manifest.json", "segmenter.npz"}
    assert not list(deployment.store.list(f"frames_store/{run.run_path}/"))


@pytest.fixture
def server(tmp_path: Path, models_dir: Path) -> Iterator[DagsterServer]:
    graph = write_graph(tmp_path / "component_graph.yaml", "segmenter", "core_clip", "loudness_extractor")
    settings = {"GRAPH_FILE": str(graph), "SUBMISSION_WINDOW_SEC": "0.1", "MIN_FREE_GB": "0"}
    cli = Cli(tmp_path / "home", models_dir, **{f"TRENDFLOW_{name}": value for name, value in settings.items()})
    with running_server(cli) as running:
        yield running


def test_the_broken_file_of_a_list_stops_no_other_and_neither_does_its_backfill(
    server: DagsterServer, tmp_path: Path, clip: Path, other_clip: Path
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"this is not a video.")
    submitted = server.cli("submit", str(clip), str(other_clip), str(broken), "--wait", "--json")
    assert submitted.returncode == 0, submitted.stderr
    items = json.loads(submitted.stdout)["items"]
    found = [(item["decision"], item["status"], item["error_code"]) for item in items]
    assert found == [("new", "success", None), ("new", "success", None), ("new", "error", "video_unreadable")]
    keys = [item["run_key"] for item in items]

    assets = server.wait(lambda: server.ask(NODES)["assetNodes"], 300)
    names = {node["assetKey"]["path"][-1] for node in assets}
    # What is computed per run of a video; tables over many runs, such as the dataset, would add runs of their own.
    selected = [node["assetKey"] for node in assets if node["isPartitioned"]]
    assert {"segmenter", "core_clip", "run_manifest", "run_report"} <= names

    outcome = {
        split_partition_key(key)[0].rpartition("-")[0]: (run.status, run.tags.get("trendflow/error_code"))
        for key, run in server.backfill(selected, keys).items()
    }
    assert outcome == {
        "synthetic": ("SUCCESS", None),
        "synthetic2": ("SUCCESS", None),
        "broken": ("FAILURE", "video_unreadable"),
    }, json.dumps(outcome)

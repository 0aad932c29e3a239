"""Feature health over real runs of small clips: the command, the asset and its checks, and the same numbers in both."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from dagster import DagsterInstance, ExecuteInProcessResult

from trendflow.cli import main
from trendflow.config import Settings
from trendflow.dataset.health_checks import CHECKS
from trendflow.definitions import build_definitions
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.health_step import HEALTH
from trendflow.orchestration.jobs import CHECK_FEATURES, PROCESS_VIDEO
from trendflow.orchestration.runs import RunContext
from trendflow.orchestration.wrapper import finalise, persist, run_component
from trendflow_tests.orchestration.runs import submit_file, write_graph

# The runs are made once, on the worker that has all of these tests.
pytestmark = pytest.mark.xdist_group("health")

MEASURING = ("segmenter", "cut_detection", "loudness_extractor", "tempo_extractor", "feature_vector")


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory, models_dir: Path, clip: Path, other_clip: Path) -> Deployment:
    """A store with one run of a clip and two of another, the second computed without reuse."""
    folder = tmp_path_factory.mktemp("health")
    graph = write_graph(folder / "component_graph.yaml", *MEASURING)
    made = Deployment(Settings(home=folder / "home", models=models_dir, graph_file=graph, onnx_threads=1))
    _process(made, clip, "synthetic-clip", "run-1")
    _process(made, other_clip, "synthetic-other", "run-1")
    _process(made, other_clip, "synthetic-other", "run-2", force=True)
    return made


def _process(deployment: Deployment, source: Path, video_id: str, run_id: str, force: bool = False) -> RunContext:
    run = submit_file(deployment, source, video_id, run_id=run_id, force=force)
    for node in run.enabled:
        persist(run, run_component(run, node.name))
    finalise(run)
    return run


@dataclass(frozen=True)
class Ended:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def environment(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRENDFLOW_HOME", str(deployment.settings.home))
    monkeypatch.setenv("TRENDFLOW_MODELS", str(deployment.settings.models))
    monkeypatch.setenv("TRENDFLOW_GRAPH_FILE", str(deployment.settings.graph_file))


@pytest.fixture
def health(
    environment: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """`trendflow health` with these arguments, inside this process."""

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["trendflow", "health", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        assert isinstance(stop.value.code, int)
        return Ended(stop.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def check_features(deployment: Deployment, environment: None) -> Callable[..., ExecuteInProcessResult]:
    """Runs the job as Dagster does, with run configuration for the asset."""

    def run(**config: str) -> ExecuteInProcessResult:
        job = build_definitions(deployment).resolve_job_def(CHECK_FEATURES)
        with DagsterInstance.ephemeral() as instance:
            return job.execute_in_process(
                instance=instance, run_config={"ops": {HEALTH: {"config": config}}}, raise_on_error=False
            )

    return run


def test_the_command_tells_writes_and_compares(health: Callable[..., Ended], tmp_path: Path) -> None:
    page, document = tmp_path / "health.html", tmp_path / "health.json"
    found = health("--output", str(page), "--json", str(document))
    assert found.returncode == 0, found.stderr
    assert "2 videos (2 source files) from 3 finished runs" in found.stdout
    assert "not enough runs: 2 of 200" in found.stdout
    written = json.loads(document.read_text(encoding="utf-8"))
    assert (written["n_runs"], written["n_videos"], written["n_rows"], written["n_sources"]) == (3, 2, 2, 2)
    assert "<h1>Profile starter</h1>" in page.read_text(encoding="utf-8")
    for text in (page.read_text(encoding="utf-8"), document.read_text(encoding="utf-8")):
        assert "synthetic-clip" not in text, "a stored report names no video"
    again = health("--reference", str(document), "--json", str(document))
    assert again.returncode == 0, again.stderr
    compared = json.loads(document.read_text(encoding="utf-8"))
    assert compared["reference_created_at"] == written["created_at"]
    assert {column["ks_vs_reference"] for column in compared["columns"] if column["n"]} == {0.0}


def test_columns_are_what_the_two_newest_vectors_hold(
    deployment: Deployment, health: Callable[..., Ended], tmp_path: Path
) -> None:
    document = tmp_path / "health.json"
    assert health("--json", str(document)).returncode == 0
    columns = {column["name"]: column for column in json.loads(document.read_text())["columns"]}
    values = {}
    for path in ("upload/synthetic-clip/run-1", "upload/synthetic-other/run-2"):
        file = deployment.settings.home / "store" / "result_store" / path / "feature_vector" / "feature_vector.npz"
        with np.load(file) as archive:
            for name, value in zip(archive["feature_names"].tolist(), archive["feature_values"], strict=True):
                values.setdefault(name, []).append(value)
    assert set(columns) == set(values)
    for name, (first, second) in values.items():
        finite = sorted(value for value in (first, second) if np.isfinite(value))
        assert columns[name]["n"] == len(finite)
        assert columns[name]["nan_rate"] == 1 - len(finite) / 2
        assert np.array(columns[name]["sketch"], dtype=np.float32).tolist() == finite
        assert columns[name]["out_of_range_rate"] == 0
        missing = sum((columns[name]["empty_reasons"] | columns[name]["absent_reasons"]).values())
        assert missing == 2 - len(finite)


def test_a_video_computed_twice_agrees(health: Callable[..., Ended], tmp_path: Path) -> None:
    document = tmp_path / "health.json"
    assert health("--json", str(document)).returncode == 0
    found = json.loads(document.read_text())["reproducibility"]
    assert found == {"pairs": 1, "failing": 0, "worst_share": 0.0, "columns": {}}


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["--fail-on", "error"], 0, ""),
        (["--fail-on", "warning"], 3, "artifact_validation_failed"),
        (["--fail-on", "anything"], 2, "config_invalid"),
        (["--reference", __file__], 2, "config_invalid"),
        (["--reference", "nowhere.json"], 2, "config_invalid"),
        (["--output", "one.html", "--json", "./one.html"], 2, "config_invalid"),
        (["--profile", "nobody"], 2, "config_invalid"),
        (["synthetic-clip/run-9"], 3, "dependency_missing"),
    ],
)
def test_exit_codes(health: Callable[..., Ended], arguments: list[str], code: int, word: str) -> None:
    found = health(*arguments)
    assert found.returncode == code, found.stderr
    assert found.stderr.startswith(word)
    assert len(found.stderr.splitlines()) == (1 if word else 0)


def test_named_runs_only(health: Callable[..., Ended]) -> None:
    assert "1 video (1 source file) from 1 finished run" in health("synthetic-clip/run-1").stdout


def test_a_store_without_vectors_is_no_failure_unless_asked(
    health: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRENDFLOW_HOME", str(tmp_path / "empty"))
    found = health()
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout == "No finished run of profile 'starter' has a feature vector; process a video first.\n"
    assert health("--fail-on", "error").returncode == 3


def test_the_asset_judges_every_rule(
    deployment: Deployment, check_features: Callable[..., ExecuteInProcessResult]
) -> None:
    done = check_features()
    assert done.success
    (event,) = done.asset_materializations_for_node(HEALTH)
    assert event.partition is None
    metadata = {name: value.value for name, value in event.metadata.items()}
    assert (metadata["runs"], metadata["videos"], metadata["passed"]) == (3, 2, False)
    assert "| ranges | Holds | in order |" in metadata["rules"]
    assert "<h1>Profile starter</h1>" in Path(metadata["report"]).read_text(encoding="utf-8")
    assert json.loads(deployment.store.get(f"render_cache/_corpus/starter/{HEALTH}.json"))["n_rows"] == 2
    checks = {found.check_name: found for found in done.get_asset_check_evaluations()}
    assert set(checks) == {check.name for check in CHECKS}
    assert {name for name, found in checks.items() if found.passed} == {"ranges", "provenance"}
    assert {found.severity.value for found in checks.values() if not found.passed} == {"WARN"}
    assert checks["constants"].metadata["result"].value.startswith("not enough runs: 2 of 200")


def test_a_broken_rule_is_an_error_of_its_check(
    deployment: Deployment, check_features: Callable[..., ExecuteInProcessResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The schema is narrowed under stored values, as when a release corrects a range."""
    schema = deployment.schemas.get("loudness_extractor_npz_v3")
    document = json.loads(json.dumps(schema.document))
    document["features"]["rms_dbfs"]["range"] = [-120, -119]
    folder = deployment.settings.home.parent / "schemas"
    folder.mkdir()
    for path in deployment.schemas.directory.glob("*.json"):
        changed = document if path.stem == schema.schema_version else json.loads(path.read_text())
        (folder / path.name).write_text(json.dumps(changed))
    monkeypatch.setattr("trendflow.contracts.schema.data_path", lambda name: folder)
    monkeypatch.setattr("trendflow.orchestration.deployment._opened", {})
    done = check_features()
    checks = {found.check_name: found for found in done.get_asset_check_evaluations()}
    assert (checks["ranges"].passed, checks["ranges"].severity.value) == (False, "ERROR")
    assert "`loudness_extractor__rms_dbfs__value` | 2 of 2 values lie outside [-120, -119]" in str(
        checks["ranges"].metadata["findings"].value
    )


def test_a_missing_reference_fails_the_step_with_its_code(
    check_features: Callable[..., ExecuteInProcessResult],
) -> None:
    done = check_features(reference="nowhere.json")
    assert not done.success
    (failure,) = [event for event in done.all_events if event.event_type_value == "STEP_FAILURE"]
    assert "config_invalid" in failure.event_specific_data.error_display_string or "config_invalid" in str(
        failure.event_specific_data.user_failure_data.metadata
    )


def test_processing_a_video_does_not_judge_the_corpus(deployment: Deployment) -> None:
    names = {
        key.path[-1]
        for key in build_definitions(deployment).resolve_job_def(PROCESS_VIDEO).asset_layer.executable_asset_keys
    }
    assert HEALTH not in names
    assert {*deployment.graph.components, "run_manifest", "run_report"} == names

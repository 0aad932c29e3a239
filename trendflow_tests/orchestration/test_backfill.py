"""A release with two changed components, and the backfill over all partitions that somebody then asks for in the UI."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from trendflow.config import Settings
from trendflow.contracts.canonical import sha256_hex
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.runs import run_path_of
from trendflow.storage.cost_registry import CostRegistry
from trendflow_tests.browser import WebPage
from trendflow_tests.orchestration.command_line import Cli
from trendflow_tests.orchestration.conftest import write_clip
from trendflow_tests.orchestration.dagster_server import NODES, DagsterServer, running_server
from trendflow_tests.orchestration.release import Release, copy_release
from trendflow_tests.orchestration.runs import write_graph

# The server is started and the backfill is run once, on the worker that has all of these tests.
pytestmark = pytest.mark.xdist_group("backfill-server")

COMPONENTS = (
    *("segmenter", "core_optical_flow", "cut_detection", "optical_flow"),
    *("loudness_extractor", "tempo_extractor", "feature_vector"),
)
CHANGED = {"core_optical_flow", "loudness_extractor"}
# What reads a changed one, by the graph as it is shipped: cuts look at motion, the vector at everything.
DEPENDENT = {"cut_detection", "optical_flow", "feature_vector"}
REUSED = {"segmenter", "tempo_extractor"}
OLD, NEW = "1.0.0", "9.0.0"

STALE = """
query($keys: [AssetKeyInput!]) {
  assetNodes(assetKeys: $keys) { assetKey { path } staleStatusByPartition }
}"""
EVENTS = """
query($key: AssetKeyInput!, $partitions: [String!]) {
  assetNodeOrError(assetKey: $key) {
    ... on AssetNode {
      assetMaterializations(partitions: $partitions, limit: 1) {
        runId
        metadataEntries { label ... on TextMetadataEntry { text } ... on BoolMetadataEntry { boolValue } }
      }
    }
  }
}"""

TICKING = """
query($repository: RepositorySelector!) {
  repositoryOrError(repositorySelector: $repository) {
    ... on Repository {
      schedules { name description scheduleState { status } }
      sensors { name description sensorState { status } }
    }
  }
}"""
TICKS = """
query($selector: SensorSelector!) {
  sensorOrError(sensorSelector: $selector) {
    ... on Sensor { sensorState { ticks(limit: 5) { skipReason error { message } } } }
  }
}"""
START_SCHEDULE = """
mutation($selector: ScheduleSelector!) {
  startSchedule(scheduleSelector: $selector) {
    ... on ScheduleStateResult { scheduleState { id status } }
    ... on PythonError { message }
  }
}"""
STOP_SCHEDULE = """
mutation($id: String!) {
  stopRunningSchedule(id: $id) {
    ... on ScheduleStateResult { scheduleState { id status } }
    ... on PythonError { message }
  }
}"""
SKIPPING = {
    "failure_alarm": "no alarm stands",
    "retry_failed_runs": "No run ended of an error that may pass.",
}
"""Sensors that have nothing to do here, and why."""
ON = (
    *("clean_up_daily", "compact_daily", "check_features_daily"),
    *("state_of_failed_runs", "state_of_cancelled_runs", "take_submissions", "reconcile_runs", *SKIPPING),
)
OFF = ("collect_daily", "build_weekly")

Manifests = dict[str, Mapping[str, Any]]
"""Partition key → manifest."""


@dataclass(frozen=True)
class Backfill:
    """What stood before and after, of every partition."""

    server: DagsterServer
    deployment: Deployment
    before: Manifests
    after: Manifests
    runs: dict[str, str]
    """Partition key → Dagster run of the backfill."""
    stale: dict[str, set[str]]
    """Component → what Dagster said of its partitions before the backfill."""
    costs: dict[str, set[str]]
    """Partition key → components that the backfill measured, which it does of what it computes."""

    @property
    def key(self) -> str:
        return min(self.after)


@pytest.fixture(scope="module")
def backfill(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Backfill]:
    folder = tmp_path_factory.mktemp("backfill")
    graph = write_graph(folder / "graph.yaml", *COMPONENTS)
    deployment = Deployment(Settings(home=folder / "home", models=models_dir, graph_file=graph))
    cli = Cli(deployment.settings.home, models_dir, TRENDFLOW_GRAPH_FILE=str(graph))
    for seed, video_id in enumerate(("the-first-clip", "the-second-clip")):
        done = cli("process", str(write_clip(folder / f"{seed}.mp4", seed)), "--video-id", video_id)
        assert done.returncode == 0, done.stderr
    before, measured = _manifests(deployment), _cost_rows(deployment)

    _change(copy_release(folder))  # where the server is started
    with running_server(cli) as server:
        stale, runs = _backfill(server, sorted(before))
        costs = {key: set[str]() for key in before}
        for row in _cost_rows(deployment):
            if row not in measured:
                costs[_key_of_run(before, row["provenance"]["run_id"])].add(row["component"])
        yield Backfill(server, deployment, before, _manifests(deployment), runs, stale, costs)


def _change(release: Release) -> None:
    """Change what two components compute, raise their versions and pin them."""
    version = 'producer_version="{}"'
    release.edit("audio/loudness_extractor.py", "_FRAME, _HOP = 2048, 512", "_FRAME, _HOP = 4096, 512")
    forgotten = release("schemas", "check")
    assert forgotten.returncode != 0
    assert "loudness_extractor changed but its producer_version" in forgotten.stdout
    release.edit("visual/core_optical_flow.py", "_summary.median(dt_s)", "2.0 * _summary.median(dt_s)")
    for module in ("audio/loudness_extractor.py", "visual/core_optical_flow.py"):
        release.edit(module, version.format(OLD), version.format(NEW))
    assert release("schemas", "lock").stdout.split() == ["pinned:", "core_optical_flow,", "loudness_extractor"]


def _backfill(server: DagsterServer, keys: list[str]) -> tuple[dict[str, set[str]], dict[str, str]]:
    """Launch a backfill of everything a run has over all partitions; returns after its end."""
    nodes = server.wait(lambda: server.ask(NODES)["assetNodes"], 300)
    selected = [
        node["assetKey"] for node in nodes if node["isPartitioned"] and node["assetKey"]["path"] != ["prediction"]
    ]
    found = server.ask(STALE, keys=selected)["assetNodes"]
    stale = {node["assetKey"]["path"][-1]: set(node["staleStatusByPartition"]) for node in found}
    runs = server.backfill(selected, keys)
    assert {run.status for run in runs.values()} == {"SUCCESS"}, runs
    return stale, {key: run.run_id for key, run in runs.items()}


def _manifests(deployment: Deployment) -> Manifests:
    found = {}
    for path in deployment.results.run_paths():
        manifest = deployment.results.read_manifest(path)
        assert manifest is not None
        found[path.partition("/")[2]] = manifest
    return found


def _key_of_run(manifests: Manifests, run_id: str) -> str:
    return next(key for key, manifest in manifests.items() if manifest["run"]["run_id"] == run_id)


def _cost_rows(deployment: Deployment) -> list[dict[str, Any]]:
    return CostRegistry(deployment.store, deployment.schemas).rows()


def _origins(backfill: Backfill, key: str) -> dict[str, str]:
    """Component → where its result came from, as the events of the backfill's run tell."""
    found = {}
    for component in COMPONENTS:
        node = backfill.server.ask(EVENTS, key={"path": [component]}, partitions=[key])["assetNodeOrError"]
        [made] = node["assetMaterializations"]
        assert made["runId"] == backfill.runs[key]
        found[component] = {entry["label"]: entry.get("text") for entry in made["metadataEntries"]}["origin"]
    return found


def test_exactly_the_changed_components_and_what_depends_on_them_were_computed(backfill: Backfill) -> None:
    assert len(backfill.after) == 2
    for key, manifest in backfill.after.items():
        assert manifest["run"]["finished_at"] > backfill.before[key]["run"]["finished_at"]
        rows = {row["name"]: row for row in manifest["components"]}
        earlier = {row["name"]: row for row in backfill.before[key]["components"]}
        assert rows.keys() == earlier.keys() == {*CHANGED, *DEPENDENT, *REUSED}
        assert {name for name, row in rows.items() if row != earlier[name]} == {*CHANGED, *DEPENDENT}
        versions = {name: row["producer_version"] for name, row in rows.items()}
        assert versions == {name: NEW if name in CHANGED else earlier[name]["producer_version"] for name in rows}
        for name in CHANGED:
            assert rows[name]["artifacts"][0]["content_digest"] != earlier[name]["artifacts"][0]["content_digest"]
        assert not any(rows[name]["cache_hit"] for name in (*CHANGED, *DEPENDENT))


def test_events_and_costs_tell_the_same(backfill: Backfill) -> None:
    for key in backfill.after:
        origins = _origins(backfill, key)
        assert {name for name, origin in origins.items() if origin == "computed"} == {*CHANGED, *DEPENDENT}
        assert {name for name, origin in origins.items() if origin == "resume"} == REUSED
        assert backfill.costs[key] == {*CHANGED, *DEPENDENT}


def test_dagster_knew_what_was_out_of_date_and_that_nothing_is_any_more(backfill: Backfill) -> None:
    # What depends on a changed component is up to date with what that made last, until it makes something else.
    assert {name for name in COMPONENTS if backfill.stale[name] != {"FRESH"}} == CHANGED
    keys = [{"path": [name]} for name in COMPONENTS]
    for node in backfill.server.ask(STALE, keys=keys)["assetNodes"]:
        assert set(node["staleStatusByPartition"]) == {"FRESH"}, node


def test_what_was_replaced_is_still_valid(backfill: Backfill) -> None:
    for key, manifest in backfill.after.items():
        folder = f"result_store/{run_path_of(key)}"
        for row in manifest["components"]:
            for artifact in row["artifacts"]:
                assert sha256_hex(backfill.deployment.store.get(f"{folder}/{artifact['path']}")) == artifact["sha256"]
        view = backfill.deployment.states.read_run(run_path_of(key))
        assert view is not None
        assert (view.run["status"], view.run["attempt"]) == ("success", 2)


def test_everything_that_ticks_is_listed_and_can_be_switched(backfill: Backfill) -> None:
    """As the automation page asks for it."""
    server, location = backfill.server, {"repositoryLocationName": "trendflow", "repositoryName": "__repository__"}
    found = server.ask(TICKING, repository=location)["repositoryOrError"]
    status = {each["name"]: each["scheduleState"]["status"] for each in found["schedules"]}
    status |= {each["name"]: each["sensorState"]["status"] for each in found["sensors"]}
    assert {name: state for name, state in status.items() if name in ON} == dict.fromkeys(ON, "RUNNING")
    assert {name: state for name, state in status.items() if name in OFF} == dict.fromkeys(OFF, "STOPPED")
    assert all(each["description"] for each in (*found["schedules"], *found["sensors"]))
    selector = {**location, "scheduleName": "collect_daily"}
    started = server.ask(START_SCHEDULE, selector=selector)["startSchedule"]["scheduleState"]
    assert started["status"] == "RUNNING"
    stopped = server.ask(STOP_SCHEDULE, id=started["id"])["stopRunningSchedule"]["scheduleState"]
    assert stopped["status"] == "STOPPED"


def test_sensors_say_why_they_do_nothing(backfill: Backfill) -> None:
    def reasons() -> dict[str, str] | None:
        said = {}
        for name in SKIPPING:
            selector = {"repositoryLocationName": "trendflow", "repositoryName": "__repository__", "sensorName": name}
            ticks = backfill.server.ask(TICKS, selector=selector)["sensorOrError"]["sensorState"]["ticks"]
            assert not any(tick["error"] for tick in ticks), ticks
            if ticks and ticks[0]["skipReason"]:
                said[name] = ticks[0]["skipReason"]
        return said if said.keys() == SKIPPING.keys() else None

    for name, reason in backfill.server.wait(reasons, 240).items():
        assert SKIPPING[name] in reason


def test_a_browser_shows_assets_runs_and_what_ticks(backfill: Backfill, web_page: WebPage) -> None:
    url, key = backfill.server.url, backfill.key
    web_page.open(f"{url}/asset-groups")
    web_page.shows("Global asset lineage", "visual_core", "visual_modules", "audio", "feature_vector", "operations")
    web_page.open(f"{url}/assets/feature_vector?view=lineage")
    web_page.shows(*COMPONENTS, "run_manifest", "feature_health")
    web_page.open(f"{url}/assets/loudness_extractor?view=partitions&partition={quote(key, safe='')}")
    rows = {row["name"]: row for row in backfill.after[key]["components"]}
    digest = rows["loudness_extractor"]["artifacts"][0]["content_digest"]
    web_page.shows(key, "producer_version", NEW, "content_digest", digest, "lufs_integrated")
    web_page.open(f"{url}/runs/{backfill.runs[key]}")
    web_page.shows(backfill.runs[key][:8], "Success", key, "video_run")
    web_page.open(f"{url}/automation")
    web_page.shows(*ON, *OFF)


def test_a_browser_shows_the_report_of_the_run(backfill: Backfill, web_page: WebPage) -> None:
    key, folder = backfill.key, backfill.deployment.settings.home / "store" / "render_cache"
    web_page.open((folder / run_path_of(key) / "report.html").as_uri())
    manifest = backfill.after[key]
    web_page.shows(manifest["run"]["run_id"], *COMPONENTS, NEW)

"""From snapshots to `training_dataset` through Dagster, on a SYNTHETIC corpus."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dagster import (
    DagsterInstance,
    ExecuteInProcessResult,
    RunRequest,
    ScheduleDefinition,
    SkipReason,
    build_schedule_context,
)

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.snapshots.importer import import_snapshots
from trendflow.dataset.stored_tables import CHANNELS, DATASET, SNAPSHOTS, StoredTable, TableStore
from trendflow.dataset.table.build import BuiltDataset
from trendflow.definitions import build_definitions
from trendflow.orchestration import dataset_assets, dataset_step
from trendflow.orchestration.dataset_checks import RULES, check_stored_dataset
from trendflow.orchestration.dataset_step import (
    BuildRequest,
    build,
    build_stored,
    read_snapshots,
    read_stored,
    snapshot_store,
    store_channels,
    store_snapshots,
)
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.jobs import BUILD_DATASET, COLLECT_SNAPSHOTS
from trendflow.orchestration.resources import TrendFlowResource
from trendflow.orchestration.schedules import BUILD_WEEKLY, COLLECT_DAILY
from trendflow_tests.dataset.collector.youtube_server import KEY, channel, video, youtube_server
from trendflow_tests.orchestration.corpus import (
    VIDEOS,
    Corpus,
    checked,
    data_versions,
    failure_metadata,
    materialised,
    with_later_counter,
    write_corpus,
)

# The corpus is invented once, on the worker that has all of these tests.
pytestmark = pytest.mark.xdist_group("dataset_assets")

Run = Callable[..., ExecuteInProcessResult]
SYNTHETIC = {"dataset_build": {"synthetic": True}}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def run(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a job of the first location as Dagster does, with configuration per step."""
    corpus.use(monkeypatch)

    def execute(job: str = BUILD_DATASET, **config: dict[str, Any]) -> ExecuteInProcessResult:
        definitions = build_definitions(corpus.deployment).resolve_job_def(job)
        with DagsterInstance.ephemeral() as instance:
            return definitions.execute_in_process(
                instance=instance,
                run_config={"ops": {name: {"config": values} for name, values in config.items()}},
                raise_on_error=False,
            )

    return execute


def test_a_dataset_is_built_stored_and_checked(corpus: Corpus, run: Run) -> None:
    result = run(**SYNTHETIC)
    assert result.success
    made = materialised(result)
    assert set(made) == {"snapshots", "targets", "channel_enrichment", "feature_table", "training_dataset"}
    assert {name: found.passed for (_, name), found in checked(result).items()} == dict.fromkeys(RULES, True)

    stored = TableStore(corpus.deployment.store).require(DATASET)
    with tempfile.TemporaryDirectory() as name:
        dataset = read_stored(corpus.deployment, stored, Path(name))
    assert data_versions(result)["training_dataset"] == dataset.fingerprint
    assert dataset.synthetic
    assert dataset.table.num_rows == VIDEOS
    shown = made["training_dataset"].metadata
    assert shown["SYNTHETIC"].value is True
    for head, share in dataset.metadata["mask_coverage"].items():
        known = sum(dataset.table[f"mask_{head}"].to_pylist())
        assert share == known / VIDEOS
        assert f"| {head} | {known / VIDEOS:.1%} |" in str(shown["mask_coverage"].value)


def test_the_asset_and_the_command_build_the_same_dataset(corpus: Corpus, run: Run) -> None:
    by_asset = data_versions(run(**SYNTHETIC))["training_dataset"]
    by_command = build(corpus.deployment, import_snapshots([corpus.file]), None, BuildRequest(synthetic=True))
    assert by_command.metadata["dataset_fingerprint"] == by_asset


def test_data_versions_follow_the_data(corpus: Corpus, run: Run, tmp_path: Path) -> None:
    first = data_versions(run(**SYNTHETIC))
    assert data_versions(run(**SYNTHETIC)) == first
    rows = pq.read_table(corpus.file)
    begun = {row["video_id"]: row["snapshot_time"] for row in reversed(rows.to_pylist())}
    late = [(row["snapshot_time"] - begun[row["video_id"]]).days > 18 for row in rows.to_pylist()]
    fewer = tmp_path / corpus.file.name
    pq.write_table(rows.filter([not one for one in late]), fewer)
    second = data_versions(run(snapshots={"files": [str(fewer)]}, **SYNTHETIC))
    changed = {name for name, version in first.items() if second[name] != version}
    assert changed == {"snapshots", "targets", "channel_enrichment", "training_dataset"}, "features know no outcome"


def test_invented_snapshots_need_permission(corpus: Corpus, run: Run) -> None:
    result = run()
    assert not result.success
    assert failure_metadata(result)["error_code"] == "input_constraint_violated"
    assert "training_dataset" not in materialised(result)
    with pytest.raises(TrendFlowError, match="--synthetic of the command, or synthetic: true in the configuration"):
        build_stored(corpus.deployment, BuildRequest())


def test_tables_that_another_program_made_are_made_again_first(
    corpus: Corpus, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(**SYNTHETIC)
    for name, digest in (("snapshots", "importer_digest"), ("targets", "targets_digest")):
        with monkeypatch.context() as changed:
            changed.setattr(dataset_step, digest, lambda: "0" * 64)
            with pytest.raises(TrendFlowError, match=f"stored {name} were made before the program changed") as caught:
                build_stored(corpus.deployment, BuildRequest(synthetic=True))
            assert caught.value.error_code == "artifact_validation_failed"
            assert run(**SYNTHETIC).success, "the job makes them again"
        run(**SYNTHETIC)


def test_a_planted_leak_fails_its_check_and_the_build(corpus: Corpus, run: Run, tmp_path: Path) -> None:
    run(**SYNTHETIC)
    before = TableStore(corpus.deployment.store).require(DATASET)
    planted = tmp_path / corpus.file.name
    pq.write_table(with_later_counter(pq.read_table(corpus.file)), planted)
    result = run(snapshots={"files": [str(planted)]}, **SYNTHETIC)
    assert not result.success
    assert failure_metadata(result)["error_code"] == "leakage_violation"
    [(where, found)] = checked(result).items()
    assert where == ("training_dataset", "leakage")
    assert not found.passed
    assert "channel_total_videos_0" in str(found.metadata["findings"].value)
    assert "training_dataset" not in materialised(result)
    assert TableStore(corpus.deployment.store).require(DATASET) == before


def test_a_changed_builder_is_another_code_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def versions() -> dict[str, str | None]:
        specs = [spec for made in dataset_assets.build_dataset_assets() for spec in made.specs]
        return {spec.key.to_user_string(): spec.code_version for spec in specs}

    before = versions()
    monkeypatch.setattr(dataset_assets, "builder_digest", lambda: "0" * 64)
    changed = {name for name, version in versions().items() if version != before[name]}
    assert changed == {"feature_table", "training_dataset"}


def test_few_targets_are_a_warning(run: Run) -> None:
    result = run(dataset_build={"synthetic": True, "min_coverage": 0.99})
    assert result.success
    found = checked(result)["training_dataset", "mask_coverage"]
    assert not found.passed
    assert found.severity.value == "WARN"
    assert "fewer than 99%" in str(found.metadata["findings"].value)


def test_a_file_that_was_changed_fails_every_check(corpus: Corpus, run: Run) -> None:
    run(**SYNTHETIC)
    stored = TableStore(corpus.deployment.store).require(DATASET)
    key = f"{stored.facts['prefix']}/dataset.parquet"
    whole = corpus.deployment.store.get(key)
    try:
        corpus.deployment.store.put(key, whole[:-1] + bytes([whole[-1] ^ 1]))
        found = check_stored_dataset(corpus.deployment, stored, 0.5)
    finally:
        corpus.deployment.store.put(key, whole)
    assert [(check.name, check.passed, check.sound) for check in found] == [(rule, False, False) for rule in RULES]
    assert "dataset.parquet is not the file that was written" in found[0].result


def test_a_dataset_that_fails_its_checks_is_not_published(
    corpus: Corpus, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of the store between writing and reading back: what was current before stays current."""
    run(**SYNTHETIC)
    store, tables = corpus.deployment.store, TableStore(corpus.deployment.store)
    before = tables.require(DATASET)
    fewer = tmp_path / corpus.file.name
    pq.write_table(pq.read_table(corpus.file).slice(40), fewer)  # another dataset, so that this one is written anew
    real = dataset_assets.store_built

    def damaged(deployment: Deployment, built: BuiltDataset) -> StoredTable:
        stored = real(deployment, built)
        key = f"{stored.facts['prefix']}/dataset.parquet"
        store.put(key, store.get(key)[:-1])
        return stored

    monkeypatch.setattr(dataset_assets, "store_built", damaged)
    result = run(snapshots={"files": [str(fewer)]}, **SYNTHETIC)
    assert not result.success
    assert failure_metadata(result)["error_code"] == "artifact_validation_failed"
    assert {name: found.passed for (_, name), found in checked(result).items()} == dict.fromkeys(RULES, False)
    assert not {"feature_table", "training_dataset"} & set(materialised(result))
    assert tables.require(DATASET) == before


def test_an_import_that_leaves_nothing_replaces_nothing(corpus: Corpus, run: Run, tmp_path: Path) -> None:
    run(**SYNTHETIC)
    before = TableStore(corpus.deployment.store).require(SNAPSHOTS)
    rows = [{**row, "snapshot_time": None} for row in pq.read_table(corpus.file).slice(0, 3).to_pylist()]
    broken = tmp_path / corpus.file.name
    pq.write_table(pa.Table.from_pylist(rows), broken)
    result = run(snapshots={"files": [str(broken)]}, **SYNTHETIC)
    assert failure_metadata(result)["error_code"] == "input_constraint_violated"
    assert TableStore(corpus.deployment.store).require(SNAPSHOTS) == before


def test_without_snapshots_nothing_runs_and_everything_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = write_corpus(tmp_path, count=1)
    corpus.file.unlink()
    corpus.use(monkeypatch)
    definitions = build_definitions(corpus.deployment)
    assert "holds no snapshot file" in _skipped(definitions.resolve_schedule_def(BUILD_WEEKLY))
    assert "TRENDFLOW_YOUTUBE_API_KEY" in _skipped(definitions.resolve_schedule_def(COLLECT_DAILY))
    monkeypatch.delenv("TRENDFLOW_SNAPSHOT_FOLDER")
    assert "TRENDFLOW_SNAPSHOT_FOLDER" in _skipped(definitions.resolve_schedule_def(BUILD_WEEKLY))
    for job, code in ((BUILD_DATASET, "dependency_missing"), (COLLECT_SNAPSHOTS, "config_invalid")):
        with DagsterInstance.ephemeral() as instance:
            result = definitions.resolve_job_def(job).execute_in_process(instance=instance, raise_on_error=False)
        assert not result.success
        assert failure_metadata(result)["error_code"] == code


def test_both_schedules_are_off_and_ask_for_a_run_when_there_is_something(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.use(monkeypatch)
    definitions = build_definitions(corpus.deployment)
    schedules = [definitions.resolve_schedule_def(name) for name in (COLLECT_DAILY, BUILD_WEEKLY)]
    assert [found.default_status.value for found in schedules] == ["STOPPED", "STOPPED"]
    assert isinstance(_evaluated(schedules[1]), RunRequest)


def test_collected_snapshots_and_looked_up_channels_become_a_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collector, its schedule and the enrichment against a server that answers like the platform's."""
    corpus = write_corpus(tmp_path, count=1)
    corpus.file.unlink()
    with youtube_server() as server:
        corpus.use(monkeypatch, YOUTUBE_API_KEY=KEY, YOUTUBE_ENDPOINT=server.url)
        names = ["SYNTHETIC_a", "SYNTHETIC_b"]
        server.videos = {name: video(name, channel="UC_synthetic_1") for name in names}
        server.channels = {"UC_synthetic_1": channel("UC_synthetic_1")}
        opened = TrendFlowResource().deployment
        definitions = build_definitions(opened)
        collecting = definitions.resolve_schedule_def(COLLECT_DAILY)
        assert "No video is followed" in _skipped(collecting)
        for name in names:
            snapshot_store(opened).track(name, datetime.now(UTC))
        assert isinstance(_evaluated(collecting), RunRequest)
        with DagsterInstance.ephemeral() as instance:
            collected = definitions.resolve_job_def(COLLECT_SNAPSHOTS).execute_in_process(instance=instance)
            built = definitions.resolve_job_def(BUILD_DATASET).execute_in_process(
                instance=instance,
                run_config={"ops": {"dataset_build": {"config": {"synthetic": True, "metadata_only": True}}}},
                raise_on_error=False,
            )
        assert materialised(collected)["collected_snapshots"].metadata["observed"].value == 2
        assert "No snapshot is due" in _skipped(collecting)
    assert set(materialised(built)) >= {"snapshots", "targets", "channel_enrichment"}
    assert read_snapshots(opened)[1].videos["video_id"].to_pylist() == names
    assert materialised(built)["channel_enrichment"].metadata["asked"].value == "yes"
    assert TableStore(opened.store).find(CHANNELS) is not None
    assert materialised(built)["training_dataset"].metadata["videos"].value == 2
    # Nothing has a target yet: a warning, no error.
    assert built.success
    assert not checked(built)["training_dataset", "mask_coverage"].passed


def test_what_was_observed_of_a_channel_first_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later answer would be refused by the build: it says nothing about the first snapshot."""
    corpus = write_corpus(tmp_path, count=1)
    name = "SYNTHETIC_a"
    now = datetime.now(UTC)
    row = {"video_id": name, "snapshot_time": now, "views": 10.0, "likes": 1.0}
    pq.write_table(pa.Table.from_pylist([{**row, "publish_time": now - timedelta(days=1)}]), corpus.file)
    with youtube_server() as server:
        corpus.use(monkeypatch, YOUTUBE_API_KEY=KEY, YOUTUBE_ENDPOINT=server.url)
        server.videos = {name: video(name)}
        server.channels = {"UC_synthetic_1": channel("UC_synthetic_1")}
        opened = TrendFlowResource().deployment
        store_snapshots(opened, [corpus.file], collected=False)
        first = store_channels(opened)
        server.channels["UC_synthetic_1"]["statistics"]["subscriberCount"] = "1000000"
        opened.store.delete_prefix("snapshots/channels/youtube/statistics")  # as if the answer had grown old
        second = store_channels(opened)
    corpus.use(monkeypatch)
    without_key = store_channels(TrendFlowResource().deployment)
    assert first[1].lacking == {"videos_without_channel": 1, "videos_without_statistics": 1}
    [found] = first[1].enrichment.table.to_pylist()
    assert (found["channel_id"], found["channel_subscribers"]) == ("UC_synthetic_1", 900.0)
    assert second[1].enrichment.table.equals(first[1].enrichment.table)
    assert without_key[1].enrichment.table.equals(first[1].enrichment.table)
    assert first[0].digest == second[0].digest == without_key[0].digest


def _evaluated(found: Any) -> Any:
    assert isinstance(found, ScheduleDefinition)
    with (
        DagsterInstance.local_temp() as instance,
        build_schedule_context(instance, resources={"trendflow": TrendFlowResource()}) as context,
    ):
        return found(context)


def _skipped(found: Any) -> str:
    result = _evaluated(found)
    assert isinstance(result, SkipReason)
    return str(result.skip_message)

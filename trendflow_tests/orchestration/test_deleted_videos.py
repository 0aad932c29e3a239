"""A video that is deleted after its snapshots were stored: no reader of the tables meets it again."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trendflow.config import Settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.stored_tables import CHANNELS, ROOT, SNAPSHOTS, TARGETS, TableStore
from trendflow.dataset.table.build import BuiltDataset
from trendflow.dataset.targets import TargetPolicy
from trendflow.orchestration.dataset_step import (
    BuildRequest,
    build_stored,
    publish_built,
    read_channels,
    read_snapshots,
    store_built,
    store_channels,
    store_snapshots,
    store_targets,
)
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.forecast_step import stored_snapshot
from trendflow.orchestration.health_step import judge
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.tombstones import tombstone_key
from trendflow_tests.orchestration.corpus import Corpus, write_corpus

GONE, KEPT = "SYNTHETIC_video_000004", "SYNTHETIC_video_000005"
SECRET = "a key of a test"
POLICY = TargetPolicy(decrease_policy="floor")
METADATA_ONLY = BuildRequest(metadata_only=True, synthetic=True)
WITH_CONTENT = BuildRequest(synthetic=True)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    made = write_corpus(tmp_path, count=12)
    table = pq.read_table(made.file)
    rows = sorted(table.to_pylist(), key=lambda row: (row["video_id"], row["snapshot_time"]))
    for row in [row for row in rows if row["video_id"] == GONE][1:]:
        row["views"] = 1.0  # a fall, which the report on the targets lists
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), made.file)
    settings = made.deployment.settings
    keyed = Settings(home=settings.home, graph_file=settings.graph_file, tombstone_key=SECRET)
    return dataclasses.replace(made, deployment=Deployment(keyed))


def make_tables(corpus: Corpus) -> None:
    store_snapshots(corpus.deployment, [corpus.file], collected=False)
    store_targets(corpus.deployment, POLICY)
    store_channels(corpus.deployment)


def delete(corpus: Corpus, video: str = GONE) -> None:
    corpus.deployment.store.put(tombstone_key("upload", video, SECRET.encode()), b"{}")


def naming(store: ObjectStore, prefix: str) -> list[str]:
    """Objects that hold the id of the deleted video anywhere, tables by their cells."""
    found = []
    for info in store.list(prefix):
        data = store.get(info.key)
        if info.key.endswith(".parquet"):
            data = json.dumps(pq.read_table(io.BytesIO(data)).to_pylist(), default=str).encode()
        if GONE.encode() in data:
            found.append(info.key)
    return found


def rows(built: BuiltDataset) -> list[str]:
    names: list[str] = built.table["video_id"].to_pylist()
    return names


def test_the_next_build_leaves_it_out_though_the_tables_still_hold_it(corpus: Corpus) -> None:
    make_tables(corpus)
    store = corpus.deployment.store
    before = build_stored(corpus.deployment, METADATA_ONLY)
    assert GONE in rows(before)
    assert naming(store, f"{ROOT}/{SNAPSHOTS}")
    assert len(naming(store, f"{ROOT}/{TARGETS}")) == 2, "table and report"
    delete(corpus)
    after = build_stored(corpus.deployment, METADATA_ONLY)
    assert rows(after) == [name for name in rows(before) if name != GONE]
    assert after.version != before.version
    stored = store_built(corpus.deployment, after)
    assert naming(store, stored.facts["prefix"]) == []
    assert json.loads(after.reports["target_report.json"])["policy"]["decrease_policy"] == "floor"
    # The tables made anew say the same, and then nothing names the video any more.
    make_tables(corpus)
    again = build_stored(corpus.deployment, METADATA_ONLY)
    assert again.metadata["dataset_fingerprint"] == after.metadata["dataset_fingerprint"]
    publish_built(corpus.deployment, store_built(corpus.deployment, again))
    assert naming(store, ROOT) == []
    assert again.metadata["edge_cases"]["import_video_deleted"] == 1


def test_stored_targets_of_as_many_other_videos_are_not_taken(corpus: Corpus) -> None:
    store_snapshots(corpus.deployment, [corpus.file], collected=False)
    delete(corpus)
    store_targets(corpus.deployment, POLICY)
    store_channels(corpus.deployment)
    corpus.deployment.store.delete(tombstone_key("upload", GONE, SECRET.encode()))
    delete(corpus, KEPT)
    built = build_stored(corpus.deployment, METADATA_ONLY)
    assert len(rows(built)) == 11
    assert GONE in rows(built)
    assert KEPT not in rows(built)
    falls = json.loads(built.reports["target_report.json"])["falls"]
    assert GONE in {fall["video_id"] for fall in falls}


def _read_as(name: str) -> Callable[[Deployment], Any]:
    return {
        SNAPSHOTS: lambda opened: read_snapshots(opened)[1].videos.to_pylist(),
        TARGETS: lambda opened: build_stored(opened, METADATA_ONLY).metadata["dataset_fingerprint"],
        CHANNELS: lambda opened: read_channels(opened).table.to_pylist(),
    }[name]


@pytest.mark.parametrize("name", [SNAPSHOTS, TARGETS, CHANNELS])
def test_who_reads_while_a_table_is_replaced_reads_its_successor(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    make_tables(corpus)
    expected = repr(_read_as(name)(corpus.deployment))
    store = corpus.deployment.store
    tables = TableStore(store)
    before, contents = tables.current(name)
    real, rivals = store.get, [{**before.facts, "published": "again"}]

    def late(key: str) -> bytes:
        if key.startswith(f"{before.prefix}/") and rivals:
            tables.put(name, contents, rivals.pop())
        return real(key)

    monkeypatch.setattr(store, "get", late)
    assert repr(_read_as(name)(corpus.deployment)) == expected
    assert rivals == []


def test_no_forecast_takes_its_stored_snapshot(corpus: Corpus) -> None:
    make_tables(corpus)
    assert stored_snapshot(corpus.deployment, f"{GONE}/SYNTHETIC_run") is not None
    delete(corpus)
    assert stored_snapshot(corpus.deployment, f"{GONE}/SYNTHETIC_run") is None
    assert stored_snapshot(corpus.deployment, f"{KEPT}/SYNTHETIC_run") is not None


def test_a_run_that_is_left_of_it_is_refused_by_name(corpus: Corpus) -> None:
    """Its deletion did not come to an end; whoever builds in the meantime is told so."""
    make_tables(corpus)
    delete(corpus)
    built = build_stored(corpus.deployment, WITH_CONTENT)
    assert GONE not in rows(built)
    refused = {row["video_id"]: row["reason"] for row in json.loads(built.reports["refused.json"])}
    assert refused[GONE] == "tombstoned"
    assert built.metadata["excluded"]["tombstoned"] == 1


def test_feature_health_does_not_judge_what_is_left_of_it(corpus: Corpus) -> None:
    before = judge(corpus.deployment, "starter")
    delete(corpus)
    after = judge(corpus.deployment, "starter")
    assert (before.n_rows, after.n_rows) == (12, 11)


def test_the_next_dataset_names_it_no_longer(corpus: Corpus) -> None:
    """While its run is left a dataset names it among the refused; the one after that has a name of its own."""
    make_tables(corpus)
    delete(corpus)
    store = corpus.deployment.store
    refused = build_stored(corpus.deployment, WITH_CONTENT)
    store.delete_prefix(f"result_store/upload/{GONE}")
    after = build_stored(corpus.deployment, WITH_CONTENT)
    assert rows(after) == rows(refused)
    assert after.version != refused.version
    assert naming(store, store_built(corpus.deployment, after).facts["prefix"]) == []


def test_without_the_key_nobody_can_tell_whose_tombstone_it_is(corpus: Corpus) -> None:
    make_tables(corpus)
    delete(corpus)
    settings = corpus.deployment.settings
    keyless = Deployment(Settings(home=settings.home, graph_file=settings.graph_file))
    for reader in (
        lambda: read_snapshots(keyless),
        lambda: build_stored(keyless, METADATA_ONLY),
        lambda: store_snapshots(keyless, [corpus.file], collected=False),
        lambda: judge(keyless, "starter"),
    ):
        with pytest.raises(TrendFlowError) as caught:
            reader()
        assert caught.value.error_code == "config_invalid"

"""A store in which every place knows of a video, beside another video that has to stay as it is."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq

from trendflow.contracts.canonical import canonical_json
from trendflow.dataset.collector.snapshot_store import CHANNELS as CHANNEL_ANSWERS
from trendflow.dataset.collector.snapshot_store import SnapshotStore
from trendflow.dataset.program import importer_digest, targets_digest
from trendflow.dataset.snapshots.observations import Observations
from trendflow.dataset.stored_contents import enrichment_files, snapshot_files, target_files
from trendflow.dataset.stored_tables import CHANNELS, SNAPSHOTS, TARGETS, TableStore
from trendflow.dataset.table.enrichment import CHANNELS_V1, Enrichment
from trendflow.dataset.targets import build_targets
from trendflow.retention.erasure import Eraser
from trendflow.state.run_manager import RunManager
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.result_store import ResultStore
from trendflow_tests.retention.stored import make_run
from trendflow_tests.state.runs import PLAN, SCHEMAS, FixedClock
from trendflow_tests.submission.desks import USER, Deployment, draft, submission_id, video_id

GONE, KEPT = video_id(1), video_id(2)
CANARY = "SYNTHETIC canary of a text"
SECRET = b"a key of a test"
DATASET, OTHER_DATASET = "dataset_v_with", "dataset_v_without"
_T0 = datetime(2026, 1, 1, tzinfo=UTC)


def eraser(store: ObjectStore) -> Eraser:
    return Eraser(store, SCHEMAS, SECRET, clock=FixedClock())


def fill(store: ObjectStore) -> None:
    """Two videos, known everywhere."""
    deployment = Deployment(store)
    drafts = [draft("list", place, number) for place, number in enumerate((1, 2))]
    deployment.desk.submit(submission_id("list"), USER, drafts)
    queue, manager = deployment.level1()
    queue.step()
    manager.close()
    for video in (GONE, KEPT):
        text = CANARY if video == GONE else "another text"
        ended = make_run(store, "ended", video_id=video, ended=_T0, text=text.replace(" ", "_"))
        RunManager.create(deployment.states, replace(ended, run_id="live"), "starter", PLAN, holder="api")
        # Reserved by a submission that died before it was stored.
        place = {"submission_id": submission_id("dead"), "item": 0, "run_path": f"youtube/{video}/dead-{video}"}
        store.put(f"submissions/_run_ids/dead-{video}.json", canonical_json(place))
        store.put(
            f"{CHANNEL_ANSWERS}/{video}.json", canonical_json({"channel_id": "c", "observed_at": _T0.isoformat()})
        )
        store.put(f"render_cache/_corpus/{video}/health.html", f"outlier: {video}".encode())
        _collect(SnapshotStore(store), video, text)
    _make_tables(store)
    for name, video in ((DATASET, GONE), (OTHER_DATASET, KEPT)):
        sink = io.BytesIO()
        pq.write_table(pa.table({"platform_id": ["youtube"], "video_id": [video]}), sink)
        store.put(f"datasets/{name}/dataset.parquet", sink.getvalue())
        store.put(f"datasets/{name}/dataset_metadata.json", b"{}")
        manifest = {"dataset": {"dataset_version": name}}
        store.put(f"training/run_on_{name}/training_run_manifest.json", canonical_json(manifest))


def _collect(snapshots: SnapshotStore, video: str, title: str) -> None:
    snapshots.track(video, _T0)
    metadata = {"title": title, "publishedAt": _T0.isoformat()}
    for days in (0, 7):
        at = _T0 + timedelta(days=days, hours=1)
        counters = {"views": 100.0 + days, "likes": 1.0}
        snapshots.add(video, days, at, "observed", at, counters, metadata)


def _make_tables(store: ObjectStore) -> None:
    into = Observations()
    SnapshotStore(store).read_into(into)
    found, tables = into.finish(), TableStore(store)
    stored = tables.put(SNAPSHOTS, snapshot_files(found), {"made_by": importer_digest()})
    facts = {"made_from": stored.digest}
    tables.put(TARGETS, target_files(build_targets(found)), {**facts, "made_by": targets_digest()})
    rows = [
        {**dict.fromkeys(CHANNELS_V1.names, float("nan")), "platform_id": "youtube", "video_id": video}
        | {"channel_id": "c", "observed_at": _T0}
        for video in (GONE, KEPT)
    ]
    tables.put(CHANNELS, enrichment_files(Enrichment(pa.Table.from_pylist(rows, schema=CHANNELS_V1))), facts)


def digests(store: ObjectStore, video: str) -> set[bytes]:
    """Digests of the video's artifacts, as manifests and files write them."""
    found = set()
    for manifest in ResultStore(store).manifests("youtube", video):
        for row in manifest["components"]:
            found |= {artifact[key].encode() for artifact in row["artifacts"] for key in ("sha256", "content_digest")}
    return found


def traces(store: ObjectStore, needles: set[bytes]) -> set[str]:
    """Keys that hold one of these, in their name or their bytes; of a Parquet file also in its cells."""
    found = set()
    for key, data in contents(store).items():
        text = data
        if key.endswith(".parquet"):
            text += json.dumps(pq.read_table(io.BytesIO(data)).to_pylist(), default=str).encode()
        if any(needle in text or needle in key.encode() for needle in needles):
            found.add(key)
    return found


def contents(store: ObjectStore) -> dict[str, bytes]:
    return {info.key: store.get(info.key) for info in store.list()}


def comparable(store: ObjectStore) -> dict[str, bytes]:
    """Everything that does not depend on how often somebody tried: publications lie in folders of random names, and
    every manager of level 1 writes an event."""
    kept = {key: data for key, data in contents(store).items() if not key.startswith("state/_global/")}
    return {_named(key.encode()).decode(): _named(data) for key, data in kept.items()}


def _named(data: bytes) -> bytes:
    return re.sub(rb"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])", b"*", data)


def copied(objects: dict[str, bytes]) -> ObjectStore:
    store = ObjectStore.open("memory://")
    for key, data in objects.items():
        store.put(key, data)
    return store

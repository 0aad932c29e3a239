"""Small stored runs of any age."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np

from trendflow.contracts.canonical import canonical_json, sha256_hex
from trendflow.contracts.identity import RunIdentity, platform_of
from trendflow.contracts.manifest import update_run, upsert_row
from trendflow.storage.artifact_index import ArtifactIndex
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.result_store import ResultStore
from trendflow.storage.run_index import RunIndex
from trendflow_tests.storage.runs import first_manifest, make_identity, store_component

COMPONENT = "core_clip"


def stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def now() -> datetime:
    return datetime.now(UTC)


def make_run(
    store: ObjectStore,
    run_id: str,
    *,
    video_id: str = "my-video",
    ended: datetime | None = None,
    text: str = "",
) -> RunIdentity:
    """A run with everything a run can have. `text` stands in its page and in its frames. None: it did not end."""
    identity = replace(make_identity(run_id), platform_id=platform_of(video_id), video_id=video_id)
    results = ResultStore(store)
    path = identity.run_path
    expires = (ended or now()) + timedelta(days=7)
    results.create_manifest(first_manifest(identity))
    row = store_component(results, identity, COMPONENT, {"values": np.arange(8.0) + len(text)})
    results.update_manifest(path, lambda found: upsert_row(found, {**row, "idempotency_key": key_of(identity)}))
    block = {"store_key": f"frames_store/{path}", "expires_at": stamp(expires)}
    results.update_manifest(path, lambda found: update_run(found, frames_dir=block))
    store.put(f"frames_store/{path}/video/batch_00000.npy", f"frames {text}".encode())
    store.put(f"frames_store/{path}/video/metadata.json", b"{}")
    store.put(f"render_cache/{path}/report.html", f"<p>{text}</p>".encode())
    store.put(f"state/{path}/run_request.json", canonical_json({"locator": f"/films/{video_id}/{text}.mp4"}))
    store.put(f"state/{path}/run_state.json", b"{}")
    if ended is not None:
        results.update_manifest(path, lambda found: update_run(found, finished_at=stamp(ended)))
        RunIndex(store).record(identity, stamp(ended))
        ArtifactIndex(store).record(key_of(identity), {"run_path": path, "component": COMPONENT})
    return identity


def key_of(identity: RunIdentity) -> str:
    """An idempotency key that only this run has."""
    return sha256_hex(identity.run_path.encode())


def all_keys(store: ObjectStore) -> set[str]:
    return {info.key for info in store.list()}


def lost_artifacts(store: ObjectStore) -> list[str]:
    """What a manifest of the store names and the store does not hold with these bytes, found by reading everything."""
    results = ResultStore(store)
    lost = []
    for run_path in results.run_paths():
        manifest = results.read_manifest(run_path)
        assert manifest is not None
        for row in manifest["components"]:
            for artifact in row["artifacts"]:
                key = f"result_store/{run_path}/{artifact['path']}"
                if not store.exists(key) or sha256_hex(store.get(key)) != artifact["sha256"]:
                    lost.append(key)
    return lost

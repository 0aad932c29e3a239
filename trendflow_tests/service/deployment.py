"""A service on a real port over a store in memory, and its callers.

What stands behind it is the deployment of the submission tests.
"""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from trendflow.contracts.errors import ERROR_RULES, TrendFlowError
from trendflow.contracts.manifest import new_manifest
from trendflow.service.app import create_app
from trendflow.service.metrics import Metrics
from trendflow.service.parts import ComponentPlace, ServiceLimits, ServiceParts
from trendflow.service.server import make_server
from trendflow.service.users import User, Users
from trendflow.state.run_manager import RunManager
from trendflow.storage.result_store import ResultStore
from trendflow.submission.message import Message
from trendflow.submission.request import ProfileFacts
from trendflow_tests.metrics import Samples, samples_of
from trendflow_tests.state.runs import PLAN, SCHEMAS
from trendflow_tests.submission.desks import HASH, Deployment, video_id

TOKENS = {
    "free-token": User("user-free"),
    "premium-token": User("user-premium", "premium"),
    "admin-token": User("user-admin", "internal", admin=True),
}
VERSIONS = {
    "profile_version": "1",
    "feature_schema_version": "f1",
    "pipeline_version": "p1",
    "sampling_policy_version": "s1",
    "dataprocessor_version": "0.1.0",
}
PLACES = {planned.name: ComponentPlace(planned.processor, "core") for planned in PLAN}
KNOWN = bytes(np.random.default_rng(0).integers(0, 256, 3_000_000, np.uint8))  # more than one chunk


def profiles(name: str, overrides: Mapping[str, Any]) -> ProfileFacts:
    """One profile, `starter`, that nothing of can be changed."""
    if name != "starter" or overrides:
        raise TrendFlowError("config_invalid", "The deployment has no such profile.")
    return ProfileFacts(HASH, VERSIONS)


def make_parts(behind: Deployment, **changed: Any) -> ServiceParts:
    users = Users((hashlib.sha256(token.encode()).hexdigest(), user) for token, user in TOKENS.items())
    parts = ServiceParts(
        store=behind.store,
        states=behind.states,
        inbox=behind.inbox,
        desk=behind.desk,
        schemas=SCHEMAS,
        profiles=profiles,
        begin_log=lambda message: begin_log(behind, message),
        required=lambda profile: [planned.name for planned in PLAN if planned.required],
        components=PLACES,
        users=users,
        metrics=Metrics(),
        limits=ServiceLimits(poll_sec=0.01),
    )
    return replace(parts, **changed)


@dataclass
class Keeper:
    """Notes what was asked of it."""

    asked: list[Any] = field(default_factory=list)

    def request(self, platform_id: str, video_id: str, *, by: str) -> str:
        self.asked.append((platform_id, video_id, by))
        return "deletion-1"

    def report(self, request_id: str) -> Mapping[str, Any] | None:
        return {"done": True} if request_id == "deletion-1" else None

    def cleanup(self, *, dry_run: bool) -> Mapping[str, Any]:
        self.asked.append(dry_run)
        return {"bytes": 0}


@contextmanager
def served(parts: ServiceParts, *, tls: Mapping[str, Path] | None = None, **options: Any) -> Iterator[str]:
    """The address of a uvicorn that serves the parts, ready to answer."""
    server = make_server(create_app(parts, **options), **(tls or {}))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)  # from here on connections wait for the server, so nobody has to wait for its start
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"{'https' if tls else 'http'}://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def client(address: str, token: str | None = "admin-token") -> httpx.Client:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=address, headers=headers, trust_env=False, timeout=60)


def body(video: int = 1, **changed: Any) -> dict[str, Any]:
    """A request that is in order."""
    return {
        "video_id": video_id(video),
        "platform_id": "youtube",
        "video_url": f"https://www.youtube.com/watch?v={video_id(video)}",
        "profile": "starter",
        **VERSIONS,
        **changed,
    }


def accepted(api: httpx.Client, behind: Deployment, **changed: Any) -> Message:
    run_id = api.post("/api/v1/process", json=body(**changed)).json()["run_id"]
    message = behind.inbox.message_of(run_id)
    assert message is not None
    return message


def url(message: Message, rest: str = "") -> str:
    return f"/api/v1/runs/{message.identity.run_id}{rest}"


def assert_refused(answer: httpx.Response, status: int, error_code: str) -> dict:
    """The one form that every refusal has."""
    assert answer.status_code == status, answer.text
    found = answer.json()
    assert set(found) - {"run_id"} == {"error_code", "class", "message", "detail"}
    assert found["error_code"] == error_code
    assert found["class"] == ERROR_RULES[error_code].error_class
    return found


def samples(api: httpx.Client) -> Samples:
    return samples_of(api.get("/metrics").raise_for_status().text)


def begin_log(behind: Deployment, message: Message) -> None:
    RunManager.create(behind.states, message.identity, "starter", PLAN, holder="api")


def begun_run(behind: Deployment, message: Message) -> RunManager:
    """The run of a message with a log of its own, running, and known to level 1."""
    queue, level1 = behind.level1()
    queue.step()
    manager = RunManager.create(behind.states, message.identity, "starter", PLAN, holder="sensor")
    manager.begin(worker="worker-1", device=None, resolved_models={})
    level1.run_status(message.run_path, "queued")
    level1.run_status(message.run_path, "running", worker={"id": "worker-1", "device": "cpu"})
    return manager


def with_artifact(behind: Deployment, message: Message, **changed: Any) -> dict[str, Any]:
    """A run whose manifest names one artifact, of the bytes `KNOWN`; returns its row."""
    row = {
        "path": "core_clip/core_clip.npz",
        "type": "npz",
        "size": len(KNOWN),
        "sha256": "5" * 64,
        "content_digest": "6" * 64,
        "schema_version": "core_clip_npz_v3",
        "retention_class": "derived",
        **changed,
    }
    component = {
        "empty_reason": None,
        "notes": None,
        "error": "No memory was left.",
        "error_code": "out_of_memory",
        "started_at": behind.clock.utc(),
        "finished_at": behind.clock.utc(),
        "name": "core_clip",
        "kind": "core",
        "status": "error",
        "artifacts": [row],
        "duration_ms": 1.0,
        "cache_hit": False,
        "warnings": [],
        "retry_count": 0,
    }
    results = ResultStore(behind.store)
    results.create_manifest(new_manifest(message.identity, behind.clock.utc(), "starter", {"type": "youtube_url"}))
    results.update_manifest(message.run_path, lambda found: {**found, "components": [component]})
    behind.store.put(f"result_store/{message.run_path}/core_clip/core_clip.npz", KNOWN)
    return row

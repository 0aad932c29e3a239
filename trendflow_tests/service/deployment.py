"""A service on a real port over a store in memory; what stands behind it is the deployment of the submission tests."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from trendflow.contracts.errors import TrendFlowError
from trendflow.service.app import create_app
from trendflow.service.metrics import Metrics
from trendflow.service.parts import ComponentPlace, ServiceLimits, ServiceParts
from trendflow.service.server import make_server
from trendflow.service.users import User, Users
from trendflow.state.run_manager import RunManager
from trendflow.submission.message import Message
from trendflow.submission.request import ProfileFacts
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

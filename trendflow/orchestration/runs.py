"""Runs: how one is submitted, and what a process knows of it afterwards.

A submission stores three things before anything runs: the run request, which says where the source is, the state
`pending`, and the manifest with the run's identity. A Dagster partition key is enough to find them again.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from trendflow import __version__
from trendflow.contracts.artifact import ModelUsed
from trendflow.contracts.canonical import canonical_json, utc_now
from trendflow.contracts.costs import PLANNED_FROM, CostEstimate, estimates
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.graph import ComponentNode, Profile
from trendflow.contracts.identity import RunIdentity, platform_of, split_partition_key
from trendflow.contracts.keys import model_signature
from trendflow.contracts.manifest import new_manifest
from trendflow.contracts.schema import validate_document
from trendflow.contracts.video_document import VideoDocument
from trendflow.models.resolve import ResolvedModel, planned_models_used, resolve_models
from trendflow.orchestration.acceptance import accept
from trendflow.orchestration.deleted import require_not_deleted
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.limits import RunClock
from trendflow.orchestration.processes import this_process
from trendflow.orchestration.recorder import RunRecorder
from trendflow.state.layout import request_key
from trendflow.storage.cost_registry import CostRegistry
from trendflow.storage.object_store import ObjectNotFound

REQUEST_SCHEMA = "run_request_v1"
PLANNING_EXECUTIONS = 4 * PLANNED_FROM
"""Newest executions a plan looks at: some reused what they needed, or ran elsewhere."""


def new_run_id() -> str:
    return str(uuid.uuid4())


@dataclass(frozen=True, eq=False)
class RunContext:
    """One run inside one process: identity, request, profile and the models it is bound to."""

    deployment: Deployment
    identity: RunIdentity
    request: Mapping[str, Any]
    refuted: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """Index entries, by key, that were looked at and cannot be used."""
    clock: RunClock = field(default_factory=RunClock)
    costs: list[dict[str, Any]] = field(default_factory=list)
    """Rows for the cost registry, noted while this process executes the run."""
    recorder: RunRecorder = field(default_factory=RunRecorder)
    """Where the state of the run is reported to while this process executes it."""

    @property
    def run_path(self) -> str:
        return self.identity.run_path

    @property
    def profile_name(self) -> str:
        return str(self.request["profile"])

    @property
    def force_recompute(self) -> bool:
        return bool(self.request["force_recompute"])

    @property
    def profile(self) -> Profile:
        return self.deployment.graph.profile(self.profile_name)

    @cached_property
    def cost_estimates(self) -> list[CostEstimate]:
        """What earlier executions cost, read once per run and only where a plan needs it."""
        return measured_costs(self.deployment)

    @property
    def enabled(self) -> list[ComponentNode]:
        return self.deployment.graph.enabled(self.profile_name)

    def is_enabled(self, component: str) -> bool:
        return component in self.profile.components

    def is_required(self, component: str) -> bool:
        return self.profile.components[component].required

    @property
    def required(self) -> list[str]:
        """The enabled components whose failure fails the run."""
        return [node.name for node in self.enabled if self.is_required(node.name)]

    @cached_property
    def resolved(self) -> dict[str, ResolvedModel]:
        """Role → model, verified on disk. The same mapping serves the whole run."""
        return resolve_profile(self.deployment, self.profile_name)

    @cached_property
    def document_digest(self) -> str | None:
        """Digest of the document the run was submitted with, or None. Submission fixes it."""
        digest = self.manifest()["run"]["document_digest"]
        return None if digest is None else str(digest)

    def roles_of(self, component: str) -> list[str]:
        """Roles of a component that this profile maps, required ones first."""
        node = self.deployment.graph.components[component]
        return [role for role in (*node.required_roles, *node.optional_roles) if role in self.profile.models]

    def planned_models(self, component: str) -> tuple[ModelUsed, ...]:
        return planned_models_used(self.resolved, self.roles_of(component))

    def planned_signature(self, component: str) -> str:
        return model_signature(self.planned_models(component))

    def manifest(self) -> dict[str, Any]:
        """The current manifest. Raises `dependency_missing` when the run was deleted meanwhile."""
        found = self.deployment.results.read_manifest(self.run_path)
        if found is None:
            raise TrendFlowError("dependency_missing", "The run has no manifest any more.", kind="manifest")
        return found


def measured_costs(deployment: Deployment) -> list[CostEstimate]:
    """What the newest executions cost."""
    return estimates(CostRegistry(deployment.store, deployment.schemas).rows(PLANNING_EXECUTIONS))


def resolve_profile(deployment: Deployment, profile: str, *, executed_here: bool = True) -> dict[str, ResolvedModel]:
    """The models a profile needs, with digests, devices and servers checked; the last two only where it is executed.

    Raises what `resolve_models` raises.
    """
    chosen = deployment.graph.profile(profile)
    return resolve_models(
        deployment.catalogue,
        chosen.models,
        _mapped_roles(deployment, profile),
        deployment.settings.models_dir,
        production=deployment.settings.production,
        runtimes=chosen.runtimes,
        require_served=lambda entry: deployment.triton.require(entry),
        executed_here=executed_here,
    )


def _mapped_roles(deployment: Deployment, profile: str) -> list[str]:
    """Roles of the enabled components that the profile maps, sorted."""
    nodes = deployment.graph.enabled(profile)
    roles = {role for node in nodes for role in (*node.required_roles, *node.optional_roles)}
    return sorted(roles & set(deployment.graph.profile(profile).models))


def make_identity(deployment: Deployment, platform_id: str, video_id: str, run_id: str, profile: str) -> RunIdentity:
    return RunIdentity(
        platform_id=platform_id,
        video_id=video_id,
        run_id=run_id,
        config_hash=deployment.registry.config_hash(profile),
        sampling_policy_version=deployment.graph.profile(profile).sampling_policy_version,
        dataprocessor_version=__version__,
    )


@dataclass(frozen=True)
class RunOrder:
    """What a run is to be. `source_type` ∈ local_path, youtube_url, upload.

    Of a document only the digest is stored: its text has to be provided where the run is processed
    (`document_input.providing`).
    """

    identity: RunIdentity
    profile: str
    source_type: str
    locator: str
    source_sha256: str | None = None
    force_recompute: bool = False
    document_digest: str | None = None


def submit_run(
    deployment: Deployment,
    *,
    locator: str,
    source_type: str,
    platform_id: str,
    video_id: str,
    run_id: str,
    profile: str,
    force_recompute: bool = False,
    document: VideoDocument | None = None,
) -> RunContext:
    """Create a run with the profile as it is now.

    Raises `input_constraint_violated` when the run id is taken, an id is malformed or the video was deleted, and
    `config_invalid` for the profile.
    """
    identity = make_identity(deployment, platform_id, video_id, run_id, profile)
    require_not_deleted(deployment, platform_id, video_id)
    if deployment.results.read_manifest(identity.run_path) is not None:
        raise _taken(identity)
    digest = None if document is None else document.digest
    order = RunOrder(identity, profile, source_type, locator, None, force_recompute, digest)
    return create_run(deployment, order)


def create_run(deployment: Deployment, order: RunOrder) -> RunContext:
    """Store what a run begins with. The same order again completes what an earlier attempt left, and changes nothing.

    The caller knows that the video was not deleted. Raises `input_constraint_violated` for a malformed order and when
    another run has the id, `config_invalid` when the profile is not (any more) the one of the identity.
    """
    identity, created_at = order.identity, utc_now()
    _require_current(deployment, identity, order.profile)
    request: dict[str, Any] = {
        "schema_version": REQUEST_SCHEMA,
        **identity.as_dict(),
        "profile": order.profile,
        "video_source": {"type": order.source_type, "locator": order.locator, "sha256": order.source_sha256},
        "force_recompute": order.force_recompute,
        "created_at": created_at,
    }
    problems = validate_document(deployment.schemas, REQUEST_SCHEMA, request)
    if problems:
        raise TrendFlowError("input_constraint_violated", f"The run request is not valid: {problems[0]}.")
    # The request first: a manifest without a request could never be executed.
    key = request_key(identity.run_path)
    if not deployment.store.put_if_absent(key, canonical_json(request)):
        stored = json.loads(deployment.store.get(key))
        if {**stored, "created_at": created_at} != request:
            raise _taken(identity)
        request = stored
    accept(deployment, identity, order.profile, holder=this_process())
    source = {"type": order.source_type}
    deployment.results.create_manifest(
        new_manifest(identity, request["created_at"], order.profile, source, document_digest=order.document_digest)
    )
    return RunContext(deployment, identity, request)


def _taken(identity: RunIdentity) -> TrendFlowError:
    return TrendFlowError(
        "input_constraint_violated",
        f"The run {identity.partition_key} exists already; `trendflow resume` continues it.",
    )


def _require_current(deployment: Deployment, identity: RunIdentity, profile: str) -> None:
    """Results of one run must come from one configuration."""
    now = make_identity(deployment, identity.platform_id, identity.video_id, identity.run_id, profile)
    if now.config_hash != identity.config_hash or now.sampling_policy_version != identity.sampling_policy_version:
        raise TrendFlowError(
            "config_invalid",
            f"The profile {profile!r} changed since this run was submitted; submit the video again.",
            submitted=identity.config_hash,
            current=now.config_hash,
        )


def run_path_of(partition_key: str) -> str:
    """Folder of a run in every part of the store. Raises `input_constraint_violated` for a malformed key."""
    video_id, run_id = split_partition_key(partition_key)
    return f"{platform_of(video_id)}/{video_id}/{run_id}"


def view_run(deployment: Deployment, partition_key: str) -> RunContext:
    """A stored run to look at, whatever became of its request or profile since. Raises `dependency_missing`."""
    manifest = deployment.results.read_manifest(run_path_of(partition_key))
    if manifest is None:
        raise TrendFlowError("dependency_missing", f"The store holds no run {partition_key}.", kind="manifest")
    block = manifest["run"]
    try:
        request = json.loads(deployment.store.get(request_key(run_path_of(partition_key))))
    except ObjectNotFound:  # earlier releases kept requests for days only
        request = {"profile": block["profile"], "force_recompute": False}
    return RunContext(deployment, RunIdentity.from_mapping(block), request)


def open_run(deployment: Deployment, partition_key: str) -> RunContext:
    """The run behind a partition key.

    Raises `dependency_missing` for a partition nobody submitted, `input_constraint_violated` for a deleted video, and
    `config_invalid` when the profile changed since the submission: results of one run must come from one configuration.
    """
    video_id, _ = split_partition_key(partition_key)
    require_not_deleted(deployment, platform_of(video_id), video_id)
    try:
        request = json.loads(deployment.store.get(request_key(run_path_of(partition_key))))
    except ObjectNotFound as exc:
        raise TrendFlowError(
            "dependency_missing", f"The store holds no request for the run {partition_key}.", kind="run_request"
        ) from exc
    problems = validate_document(deployment.schemas, REQUEST_SCHEMA, request)
    if problems:
        raise TrendFlowError("artifact_validation_failed", f"The stored run request is not valid: {problems[0]}.")
    identity = RunIdentity.from_mapping(request)
    _require_current(deployment, identity, request["profile"])
    return RunContext(deployment, identity, request)

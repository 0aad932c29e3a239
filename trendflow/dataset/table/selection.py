"""Which run of a video a dataset takes: the newest successful one of the build's configuration, by manifests alone."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.manifest import Manifest, find_row, run_status
from trendflow.dataset.corpus import THREADS, VECTOR, in_threads
from trendflow.storage.result_store import ResultStore

Video = tuple[str, str]
"""platform_id and video_id."""

_TEST_WEIGHTS = ("random_weights", "fixture")  # how catalogue entries for tests are named


@dataclass(frozen=True)
class ComponentVersion:
    """What computed one component's result. `signature` is empty where it failed: then no model stands behind it."""

    kind: str
    producer_version: str
    schema_version: str
    signature: str


@dataclass(frozen=True)
class RunChoice:
    """The run that speaks for a video, and what its manifest says about comparing it with others."""

    platform_id: str
    video_id: str
    run_id: str
    created_at: str
    sampling_policy_version: str
    dataprocessor_version: str
    duration_seconds: float | None
    vector_sha256: str
    vector_digest: str
    vector_schema: str
    components: Mapping[str, ComponentVersion]
    test_models: tuple[str, ...]

    @property
    def run_path(self) -> str:
        return f"{self.platform_id}/{self.video_id}/{self.run_id}"

    @property
    def video(self) -> Video:
        return self.platform_id, self.video_id


@dataclass(frozen=True, order=True)
class Refusal:
    """A video that has no row, and why. `run_id` is empty where no run is to blame; `detail` names the difference."""

    platform_id: str
    video_id: str
    run_id: str
    reason: str
    detail: str = ""

    @property
    def video(self) -> Video:
        return self.platform_id, self.video_id


def told(refused: Iterable[Refusal]) -> str:
    """`2 × no_run, 1 × tombstoned`, empty where nothing was refused."""
    counts = Counter(refusal.reason for refusal in refused)
    return ", ".join(f"{count} × {reason}" for reason, count in sorted(counts.items()))


@dataclass(frozen=True)
class Selection:
    """`runs` sorted by video; `configurations`: config_hash → videos that have a successful run of it."""

    runs: tuple[RunChoice, ...]
    refused: tuple[Refusal, ...]
    configurations: Mapping[str, int]


@dataclass
class _Shared:
    """Version records of all runs, each kept once."""

    records: dict[ComponentVersion, ComponentVersion] = field(default_factory=dict)

    def __call__(self, record: ComponentVersion) -> ComponentVersion:
        return self.records.setdefault(record, record)


def select_runs(
    results: ResultStore,
    config_hash: str,
    required: Collection[str],
    wanted: Collection[Video],
    *,
    readers: int = THREADS,
    advance: Callable[[int], None] = lambda count: None,
) -> Selection:
    """One run per video of `wanted`, and a refusal for every other video of the store or of `wanted`.

    `required` names the components whose failure fails a run. A video whose manifests cannot be read is refused, an
    unreachable store raises `storage_unavailable`. `advance` hears of every video that was looked at.
    """
    shared = _Shared()
    stored = set(results.videos())

    def of_video(video: Video) -> tuple[RunChoice | None, Refusal | None, frozenset[str]]:
        try:
            manifests = list(results.manifests(*video))
        except TrendFlowError as error:
            if error.error_class == "transient":
                raise
            return None, Refusal(*video, "", "unreadable_manifest"), frozenset()
        return _newest(video, manifests, config_hash, required, shared)

    runs: list[RunChoice] = []
    refused = [Refusal(*video, "", "no_first_snapshot") for video in sorted(stored - set(wanted))]
    refused += [Refusal(*video, "", "no_run") for video in sorted(set(wanted) - stored)]
    configurations: Counter[str] = Counter()
    for run, refusal, found in in_threads(of_video, sorted(stored & set(wanted)), readers):
        advance(1)
        configurations.update(found)
        runs += [] if run is None else [run]
        refused += [] if refusal is None else [refusal]
    return Selection(tuple(runs), tuple(sorted(refused)), dict(sorted(configurations.items())))


def _newest(
    video: Video, manifests: Iterable[Manifest], config_hash: str, required: Collection[str], shared: _Shared
) -> tuple[RunChoice | None, Refusal | None, frozenset[str]]:
    successful = [manifest for manifest in manifests if _has_vector(manifest, required)]
    configurations = frozenset(manifest["run"]["config_hash"] for manifest in successful)
    fitting = [manifest for manifest in successful if manifest["run"]["config_hash"] == config_hash]
    if not fitting:
        reason = "other_configuration" if successful else "no_successful_run"
        return None, Refusal(*video, "", reason), configurations
    newest = max(fitting, key=lambda manifest: (manifest["run"]["created_at"], manifest["run"]["run_id"]))
    return _choice(newest, shared), None, configurations


def _has_vector(manifest: Manifest, required: Collection[str]) -> bool:
    row = find_row(manifest, VECTOR)
    finished = manifest["run"]["finished_at"] is not None
    return finished and row is not None and row["status"] == "ok" and run_status(manifest, required) == "success"


def component_versions(manifest: Manifest) -> dict[str, ComponentVersion]:
    """What computed each component of a run."""
    return {
        row["name"]: ComponentVersion(
            kind=row["kind"],
            producer_version=row["producer_version"],
            schema_version=row["schema_version"],
            signature="" if row["status"] == "error" else row["model_signature"],
        )
        for row in manifest["components"]
    }


def models_for_tests(manifest: Manifest) -> tuple[str, ...]:
    """Models with random weights, or fixtures, among those a run really used."""
    models = {used["model_name"] for row in manifest["components"] for used in row["models_used"]}
    return tuple(sorted(model for model in models if model.startswith(_TEST_WEIGHTS)))


def _choice(manifest: Manifest, shared: _Shared) -> RunChoice:
    block = manifest["run"]
    vector = next(row for row in manifest["components"] if row["name"] == VECTOR)["artifacts"][0]
    return RunChoice(
        platform_id=sys.intern(block["platform_id"]),
        video_id=block["video_id"],
        run_id=block["run_id"],
        created_at=block["created_at"],
        sampling_policy_version=sys.intern(block["sampling_policy_version"]),
        dataprocessor_version=sys.intern(block["dataprocessor_version"]),
        duration_seconds=block["source"]["duration_sec"],
        vector_sha256=vector["sha256"],
        vector_digest=vector["content_digest"],
        vector_schema=sys.intern(vector["schema_version"]),
        components={sys.intern(name): shared(found) for name, found in component_versions(manifest).items()},
        test_models=models_for_tests(manifest),
    )

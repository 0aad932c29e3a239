"""Garbage collection: plan everything, judge again, remove what both judgements name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from trendflow.contracts.canonical import utc_now
from trendflow.retention.policy import RetentionPolicy
from trendflow.retention.removal import REASONS, Removal, Rule
from trendflow.retention.shared_rules import IndexRule, PublicationRule
from trendflow.retention.video_rule import RESULTS, VideoRule
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.result_store import MANIFEST_NAME

SCHEMA = "retention_report_v1"


@dataclass(frozen=True)
class Plan:
    """Everything that is due at one moment, by rule and scope. Making it changes nothing."""

    parts: Sequence[tuple[Rule, str, tuple[Removal, ...]]]

    @property
    def removals(self) -> Iterator[Removal]:
        for _, _, removals in self.parts:
            yield from removals


@dataclass
class RetentionReport:
    """What was, or in a dry run would be, removed.

    `spared`: objects that were planned and not due any more when their turn came. `deletions`: requested deletions of
    videos that were, or would be, finished before; their objects are not counted here.
    """

    at: str
    dry_run: bool
    objects: Counter[str] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)
    spared: int = 0
    temporary_files: int = 0
    deletions: int = 0

    def add(self, removal: Removal) -> None:
        self.objects[removal.reason] += 1
        self.sizes[removal.reason] += removal.size

    def as_dict(self) -> dict[str, Any]:
        """A document of the schema `retention_report_v1`."""
        return {
            "schema_version": SCHEMA,
            "at": self.at,
            "dry_run": self.dry_run,
            "removed": {name: {"objects": self.objects[name], "bytes": self.sizes[name]} for name in REASONS},
            "spared": self.spared,
            "temporary_files": self.temporary_files,
            "deletions": self.deletions,
        }


class GarbageCollector:
    """Removes what the policy no longer keeps. Idempotent; may be stopped and repeated at any point.

    `deleted`: (platform_id, video_id) of erased videos, such as `Tombstones`. `excluded`: videos left to others.
    """

    def __init__(
        self,
        store: ObjectStore,
        policy: RetentionPolicy | None = None,
        *,
        now: str | None = None,
        deleted: Container[tuple[str, str]] = (),
        excluded: Container[tuple[str, str]] = (),
    ) -> None:
        self._store, self._policy = store, policy or RetentionPolicy()
        self._at = now or utc_now()
        moment = datetime.fromisoformat(self._at)
        self._videos = VideoRule(store, self._policy, moment, deleted, excluded)
        self._shared: tuple[Rule, ...] = (
            IndexRule(store, self._policy, moment),
            PublicationRule(store, self._policy, moment),
        )

    def plan(self) -> Plan:
        """Everything that is due now."""
        parts = [part for scope in self._videos.scopes() if (part := _part(self._videos, scope, frozenset()))[2]]
        gone = frozenset(run for _, _, removals in parts for item in removals if (run := _run_of_manifest(item)))
        for rule in self._shared:
            parts += [part for scope in rule.scopes() if (part := _part(rule, scope, gone))[2]]
        return Plan(parts)

    def report(self, plan: Plan) -> RetentionReport:
        """What `collect` would do with this plan if nothing changed before."""
        found = RetentionReport(self._at, True, temporary_files=self._sweep(dry_run=True))
        for removal in plan.removals:
            found.add(removal)
        return found

    def collect(self, plan: Plan) -> RetentionReport:
        """Remove what is planned and still due."""
        done = RetentionReport(self._at, False, temporary_files=self._sweep(dry_run=False))
        for rule, scope, planned in plan.parts:
            due = set(rule.removals(scope))
            for removal in planned:
                if removal not in due:
                    done.spared += 1
                elif self._store.delete(removal.key):
                    done.add(removal)
        return done

    def _sweep(self, *, dry_run: bool) -> int:
        return self._store.sweep_stale(self._policy.grace.total_seconds(), dry_run=dry_run)


def _part(rule: Rule, scope: str, gone: frozenset[str]) -> tuple[Rule, str, tuple[Removal, ...]]:
    return rule, scope, tuple(rule.removals(scope, gone))


def _run_of_manifest(removal: Removal) -> str | None:
    """Path of the run whose manifest this is."""
    folder, _, name = removal.key.rpartition("/")
    root, _, run_path = folder.partition("/")
    return run_path if root == RESULTS and name == MANIFEST_NAME and run_path.count("/") == 2 else None

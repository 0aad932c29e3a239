"""How a run ends: every combination of required and optional, failed, empty and skipped, through Dagster.

The graph is SYNTHETIC: `a` needs the Segmenter alone, `b` needs `a`, `c` needs `b`; `s` uses `a` and `t` uses `b` if
they are there; `i` has nothing to do with any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from dagster import DagsterEventType, DagsterInstance

from trendflow.components.base import ComponentInputs
from trendflow.config import Settings
from trendflow.contracts.artifact import Artifact, feature_arrays
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.manifest import find_row
from trendflow.orchestration import limits, wrapper
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.runs import RunContext
from trendflow.orchestration.wrapper import run_error, run_status
from trendflow_tests.orchestration.attempts import deployment_for
from trendflow_tests.orchestration.probe import FEATURE, Probe, add_probes, value
from trendflow_tests.orchestration.runs import Here, Submit, assert_state_agrees, problems, statuses

EDGES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "a": ((), ()),
    "b": (("a",), ()),
    "c": (("b",), ()),
    "s": ((), ("a",)),
    "t": ((), ("b",)),
    "i": ((), ()),
}
"""Component → its hard and its soft dependencies besides the Segmenter, in the order in which they run."""
FAILED = "failed with model_load_failed"


@pytest.fixture
def deployment(tmp_path: Path, models_dir: Path) -> Deployment:
    """What every deployment reads from the same files is read once."""
    return deployment_for(Settings(home=tmp_path / "home", models=models_dir))


Work = Callable[[], Artifact]
Seen = dict[str, dict[str, str]]
"""Component that ran → what it was given: upstream → status."""


def works() -> Artifact:
    return value(1.0)


def is_empty() -> Artifact:
    """Its subject is absent."""
    return Artifact.empty("no_faces_in_video", feature_arrays({FEATURE: float("nan")}))


def fails() -> Artifact:
    raise TrendFlowError("model_load_failed", "The engine refuses the weights.")


def build(deployment: Deployment, work: Mapping[str, Work], optional: str, timeout_s: float = 60.0) -> Seen:
    """Put the graph into `deployment`; what is not in `work` works. Gives back what is noted while a run goes on."""
    seen: Seen = {}

    def run_of(name: str) -> Callable[[ComponentInputs], Artifact]:
        def run(inputs: ComponentInputs) -> Artifact:
            seen[name] = {upstream: found.status for upstream, found in inputs.upstream.items()}
            return work.get(name, works)()

        return run

    add_probes(
        deployment,
        {
            name: Probe(run_of(name), hard=hard, soft=soft, required=name not in optional, timeout_s=timeout_s)
            for name, (hard, soft) in EDGES.items()
        },
    )
    return seen


def materialised(run: RunContext) -> set[str]:
    """The components that Dagster recorded as materialised in the last attempt."""
    with DagsterInstance.get() as instance:
        last = instance.get_run_records(limit=1)[0].dagster_run.run_id
        events = instance.all_logs(last, of_type=DagsterEventType.ASSET_MATERIALIZATION)
    found = {event.asset_materialization.asset_key.path[-1] for event in events if event.asset_materialization}
    return found & {node.name for node in run.enabled}


def error_tag() -> str | None:
    """The error code on Dagster's run."""
    with DagsterInstance.get() as instance:
        return instance.get_run_records(limit=1)[0].dagster_run.tags.get("trendflow/error_code")


@dataclass(frozen=True)
class End:
    """What is expected. Names are written together: `abc` are three components."""

    work: Mapping[str, Work] = field(default_factory=dict)
    optional: str = ""
    ok: str = ""
    empty: str = ""
    error: str = ""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Names → the cause they share."""
    partial: bool = False
    ended_by: tuple[str, str] | None = None
    """Code and sentence of the error of the run; None for a success."""


ENDS = {
    "all is well": End(ok="abcsti"),
    "all is well, and all could fail": End(optional="abcsti", ok="abcsti"),
    "a required component is empty": End({"a": is_empty}, ok="bcsti", empty="a"),
    "an optional component is empty": End({"a": is_empty}, optional="a", ok="bcsti", empty="a"),
    "everything is empty": End(dict.fromkeys(EDGES, is_empty), empty="abcsti"),
    "a required component fails": End(
        {"a": fails},
        error="a",
        skipped={"bcsti": f"a {FAILED}"},
        ended_by=("model_load_failed", "The engine refuses the weights."),
    ),
    "a required component fails in the middle": End(
        {"s": fails},
        ok="abc",
        error="s",
        skipped={"ti": f"s {FAILED}"},
        ended_by=("model_load_failed", "The engine refuses the weights."),
    ),
    "the last component fails and is required": End(
        {"i": fails}, ok="abcst", error="i", ended_by=("model_load_failed", "The engine refuses the weights.")
    ),
    "the last component fails and is optional": End({"i": fails}, optional="i", ok="abcst", error="i", partial=True),
    "an optional component fails, and so does what needs it": End(
        {"a": fails}, optional="abc", ok="sti", error="a", skipped={"bc": f"a {FAILED}"}, partial=True
    ),
    "an optional component fails that others only use": End(
        {"b": fails}, optional="bc", ok="asti", error="b", skipped={"c": f"b {FAILED}"}, partial=True
    ),
    "a required component needs the optional one that fails": End(
        {"a": fails},
        optional="a",
        error="a",
        skipped={"b": f"a {FAILED}", "csti": f"b was skipped: a {FAILED}"},
        partial=True,
        ended_by=("dependency_missing", f"b was skipped: a {FAILED}."),
    ),
    "a required component needs what was skipped": End(
        {"a": fails},
        optional="ab",
        error="a",
        skipped={"bc": f"a {FAILED}", "sti": f"c was skipped: a {FAILED}"},
        partial=True,
        ended_by=("dependency_missing", f"c was skipped: a {FAILED}."),
    ),
    "an optional component fails before a required one": End(
        {"a": fails, "t": fails},
        optional="abc",
        ok="s",
        error="at",
        skipped={"bc": f"a {FAILED}", "i": f"t {FAILED}"},
        partial=True,
        ended_by=("model_load_failed", "The engine refuses the weights."),
    ),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_run_ends_as_its_components_did(
    deployment: Deployment, clip: Path, submit: Submit, here: Here, end: End
) -> None:
    seen = build(deployment, end.work, end.optional)
    run = submit(deployment, clip)
    assert here(run) == ("error" if end.ended_by else "success")
    manifest = run.manifest()

    expected = {"segmenter": "ok"}
    expected |= {name: status for status in ("ok", "empty", "error") for name in getattr(end, status)}
    assert statuses(run) == expected
    assert run_status(run, manifest) == ("error" if end.ended_by else "success")
    assert {entry["name"]: entry["because"] for entry in manifest["run"]["skipped"]} == {
        name: because for names, because in end.skipped.items() for name in names
    }
    assert manifest["run"]["warnings"] == (["partial_failure"] if end.partial else [])
    assert manifest["run"]["finished_at"] is not None
    error = run_error(run, manifest)
    assert (None if error is None else (error.error_code, error.message)) == end.ended_by
    assert error_tag() == (end.ended_by[0] if end.ended_by else None)

    # What was skipped did not run; what ran was given whatever gave a result, an empty one like any other.
    given = {name: status for name, status in expected.items() if status != "error"}
    assert seen == {
        name: {dep: given[dep] for dep in ("segmenter", *hard, *soft) if dep in given}
        for name, (hard, soft) in EDGES.items()
        if name in expected
    }
    # A failure is stored first: as an artifact of meta alone, with a row that says the same.
    for name in end.error:
        stored = deployment.results.read_artifact(run.run_path, name)
        assert dict(stored.arrays) == {}
        assert (stored.meta["status"], stored.meta["error_code"]) == ("error", "model_load_failed")
    fatal = {name for name in end.error if name not in end.optional}
    assert materialised(run) == expected.keys() - fatal
    assert problems(deployment, run.run_path) == []
    assert_state_agrees(run)


def time_runs_out(monkeypatch: pytest.MonkeyPatch) -> Work:
    """Work during which the time of the run runs out: it ends itself, nothing after it starts in time."""

    def work() -> Artifact:
        monkeypatch.setattr(limits, "MIN_RUN_LIMIT_S", 0.0)
        monkeypatch.setattr(limits, "RUN_LIMIT_PER_SECOND", 0.0)
        return value(1.0)

    return work


@pytest.mark.parametrize("late", ["a", "t"])
def test_a_run_over_its_time_ends_in_error_although_all_that_is_left_is_optional(
    deployment: Deployment, clip: Path, submit: Submit, here: Here, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    names = list(EDGES)
    before, (stopped, *rest) = names[: names.index(late) + 1], names[names.index(late) + 1 :]
    with monkeypatch.context() as patch:
        seen = build(deployment, {late: time_runs_out(patch)}, "".join((stopped, *rest)))
        run = submit(deployment, clip)
        assert here(run) == "error"
    manifest = run.manifest()
    assert run_status(run, manifest) == "error"
    assert statuses(run) == {"segmenter": "ok", **dict.fromkeys(before, "ok"), stopped: "error"}
    assert {entry["name"]: entry["because"] for entry in manifest["run"]["skipped"]} == dict.fromkeys(
        rest, "the time of the run was up"
    )
    assert list(seen) == before
    error = run_error(run, manifest)
    assert error is not None
    assert (error.error_code, error_tag()) == ("timeout", "timeout")
    assert error.message == "The run took longer than 0 s."
    assert_state_agrees(run)
    # A new attempt has time of its own, and keeps what the first one finished.
    seen.clear()
    assert here(run) == "success"
    manifest = run.manifest()
    assert list(seen) == [stopped, *rest]
    assert run_status(run, manifest) == "success"
    assert run_error(run, manifest) is None
    assert (manifest["run"]["skipped"], manifest["run"]["warnings"]) == ([], [])
    assert_state_agrees(run)


def test_an_optional_component_over_its_own_time_is_a_partial_failure(
    deployment: Deployment, clip: Path, submit: Submit, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wrapper, "RETRY_WAITS", (0.0,))
    tries: list[int] = []

    def too_slow() -> Artifact:
        tries.append(1)
        raise TrendFlowError("timeout", "The test says so.", scope="component")

    build(deployment, {"a": too_slow}, "abc")
    run = submit(deployment, clip)
    assert here(run) == "success"
    manifest = run.manifest()
    row = find_row(manifest, "a")
    assert row is not None
    assert (row["error_code"], row["retry_count"], len(tries)) == ("timeout", 2, 3)
    assert run_status(run, manifest) == "success"
    assert manifest["run"]["warnings"] == ["partial_failure"]
    assert statuses(run)["i"] == "ok"
    assert_state_agrees(run)

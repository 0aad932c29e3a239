"""Why something was reused or recomputed: the changed part by name, with both of its values."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest

from trendflow.components.base import ComponentInputs
from trendflow.contracts.artifact import Artifact
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.manifest import retract_row, skip_component
from trendflow.contracts.thresholds import THRESHOLDS
from trendflow.contracts.video_document import VideoDocument
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.document_input import providing
from trendflow.orchestration.explain import Explanation, explain
from trendflow_tests.orchestration.probe import NAME, add_probe, value
from trendflow_tests.orchestration.runs import AUDIO, Execute, Submit, only, submit_file, with_profile

OLD, NEW = "a" * 64, "b" * 64


def differences(found: Explanation) -> dict[str, tuple[str, str | None]]:
    return {part.part: (part.here, part.there) for part in found.parts if not part.same}


def set_reference(deployment: Deployment, reference: dict[str, str]) -> None:
    """As if the program were another release, with these reference files."""
    entry = deployment.registry[NAME]
    changed = dataclasses.replace(entry, spec=dataclasses.replace(entry.spec, reference=reference))
    deployment.registry._entries[NAME] = changed


def one(inputs: ComponentInputs) -> Artifact:
    return value(1.0)


def test_a_changed_reference_file_is_named_with_both_digests(
    deployment: Deployment, clip: Path, submit: Submit, execute: Execute
) -> None:
    add_probe(deployment, one, reference={"bank_v1.yaml": OLD, "same_v1.yaml": OLD})
    first = submit(deployment, clip)
    execute(first)
    set_reference(deployment, {"bank_v1.yaml": NEW, "same_v1.yaml": OLD})
    second = submit(deployment, clip)
    assert execute(second)[NAME].origin == "computed"
    found = explain(second, NAME)
    changed = differences(found)
    assert set(changed) == {"reference:bank_v1.yaml", "idempotency_key"}
    assert changed["reference:bank_v1.yaml"] == (NEW, OLD)
    assert found.verdict == (
        f"It was recomputed because reference:bank_v1.yaml differs from run {first.identity.run_id}."
    )
    # What the program has today must not matter to a question about the past.
    set_reference(deployment, {"bank_v1.yaml": "c" * 64})
    assert differences(explain(second, NAME)) == changed


def test_a_reference_file_that_came_or_went_is_named(
    deployment: Deployment, clip: Path, submit: Submit, execute: Execute
) -> None:
    add_probe(deployment, one, reference={"old_v1.yaml": OLD})
    execute(submit(deployment, clip))
    set_reference(deployment, {"new_v1.yaml": NEW})
    run = submit(deployment, clip)
    execute(run)
    changed = differences(explain(run, NAME))
    assert changed["reference:old_v1.yaml"] == ("absent", OLD)
    assert changed["reference:new_v1.yaml"] == (NEW, "absent")


def test_the_shipped_thresholds_are_recorded_and_survive_reuse(
    deployment: Deployment, clip: Path, submit: Submit, execute: Execute, repo_root: Path
) -> None:
    with_profile(deployment, only(*AUDIO))
    execute(submit(deployment, clip), AUDIO)
    run = submit(deployment, clip)
    assert execute(run, AUDIO)["tempo_extractor"].origin == "cache"
    found = explain(run, "tempo_extractor")
    assert found.outcome == "reused"
    assert differences(found) == {}
    file = repo_root / "trendflow" / "components" / THRESHOLDS.file_name
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    stored = deployment.results.read_artifact(run.run_path, "tempo_extractor").meta
    assert stored["db_digest"] == {THRESHOLDS.file_name: digest}
    assert {part.part: part.here for part in found.parts}[f"reference:{THRESHOLDS.file_name}"] == digest


def test_a_result_that_cannot_be_read_says_so_instead_of_guessing(
    deployment: Deployment, clip: Path, submit: Submit, execute: Execute
) -> None:
    add_probe(deployment, one, reference={"bank_v1.yaml": OLD})
    first, second = submit(deployment, clip), submit(deployment, clip)
    execute(first)
    deployment.store.delete(f"result_store/{first.run_path}/{NAME}/{NAME}.npz")
    assert execute(second)[NAME].origin == "computed"
    changed = differences(explain(second, NAME))
    assert changed["reference"] == ("absent", "unreadable")
    assert "idempotency_key" not in changed


def test_an_upstream_that_changed_is_named(
    deployment: Deployment, clip: Path, other_clip: Path, submit: Submit, execute: Execute
) -> None:
    add_probe(deployment, one)
    execute(submit(deployment, clip))
    run = submit(deployment, other_clip)
    execute(run)
    assert set(differences(explain(run, NAME))) == {"source_media", "upstream:segmenter", "idempotency_key"}


def test_a_document_is_a_part_only_where_it_is_read(deployment: Deployment, clip: Path, execute: Execute) -> None:
    add_probe(deployment, one, ("document",), beside=("tempo_extractor",))

    def run_with(text: VideoDocument) -> Explanation:
        run = submit_file(deployment, clip, document=text)
        with providing(run, text):
            execute(run)
        assert {part.part: part.here for part in explain(run, "tempo_extractor").parts}["document"] == "none"
        return explain(run, NAME)

    first, second = VideoDocument(title="one"), VideoDocument(title="two")
    assert run_with(first).outcome == "computed"
    assert differences(run_with(second))["document"] == (second.digest, first.digest)


def test_a_skipped_dependency_is_part_of_the_key_as_an_error(
    deployment: Deployment, clip: Path, submit: Submit, execute: Execute
) -> None:
    add_probe(deployment, one, beside=("tempo_extractor",))
    node = deployment.graph.components[NAME]
    graph = deployment.graph.components
    assert isinstance(graph, dict)
    graph[NAME] = dataclasses.replace(node, soft=("tempo_extractor",))
    run = submit(deployment, clip)
    execute(run, {"segmenter"})
    deployment.results.update_manifest(run.run_path, lambda found: skip_component(found, "tempo_extractor", "a test"))
    assert execute(run, {NAME})[NAME].status == "ok"
    parts = {part.part: part.here for part in explain(run, NAME).parts}
    assert parts["upstream:tempo_extractor"] == "error"


def test_the_run_it_came_from_may_be_gone(deployment: Deployment, clip: Path, submit: Submit, execute: Execute) -> None:
    add_probe(deployment, one)
    first, second = submit(deployment, clip), submit(deployment, clip)
    execute(first)
    execute(second)
    assert explain(second, NAME).compared_with == first.identity.run_id
    deployment.results.update_manifest(first.run_path, lambda found: retract_row(found, NAME))
    found = explain(second, NAME)
    assert (found.outcome, found.compared_with) == ("reused", None)
    assert first.identity.run_id in found.verdict


def test_a_component_that_has_not_run_has_no_explanation(deployment: Deployment, clip: Path, submit: Submit) -> None:
    with pytest.raises(TrendFlowError, match="dependency_missing"):
        explain(submit(deployment, clip), "core_clip")

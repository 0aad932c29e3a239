"""The profile with int8 variants: it runs, and its results are never taken for those of the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trendflow.orchestration import cache
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.runs import RunContext
from trendflow.orchestration.work import Finished
from trendflow_tests.orchestration.runs import Execute, submit_file

PARTS = {"segmenter", "core_clip"}


def _key(run: RunContext, results: dict[str, Finished]) -> cache.KeyParts:
    source = run.manifest()["run"]["source"]["sha256"]
    return cache.key_parts(run, "core_clip", source, {"segmenter": results["segmenter"].digests})


def test_the_variant_is_another_model_with_results_of_its_own(
    deployment: Deployment, clip: Path, execute: Execute
) -> None:
    runs = {profile: submit_file(deployment, clip, profile=profile) for profile in ("starter", "starter_int8")}
    results = {profile: execute(run, PARTS) for profile, run in runs.items()}
    # The clip is the same and the first result is stored; another model's must be computed all the same.
    assert [found["core_clip"].origin for found in results.values()] == ["computed", "computed"]
    reference, variant = (found["core_clip"] for found in results.values())
    (used,) = variant.meta["models_used"]
    assert (used["model_name"], used["precision"]) == ("efficientnet_lite0_224_int8", "int8")
    assert variant.meta["model_signature"] != reference.meta["model_signature"]
    keys = [_key(run, results[profile]) for profile, run in runs.items()]
    assert keys[0].key != keys[1].key
    assert keys[0].model_signature != keys[1].model_signature
    assert runs["starter_int8"].manifest()["run"]["resolved_models"]["image_encoder"]["precision"] == "int8"
    a, b = (result.arrays["frame_embeddings"] for result in (reference, variant))
    assert not np.array_equal(a, b)
    assert np.einsum("nd,nd->n", a, b).mean() > 0.95  # noise with hard edges is harder than pictures
    # What the profile does not change keeps its signature, so its results can be reused.
    signatures = [run.planned_signature("core_face_landmarks") for run in runs.values()]
    assert signatures[0] == signatures[1]


def test_the_profiles_differ_in_nothing_but_models(deployment: Deployment) -> None:
    starter, variant = (deployment.graph.profile(name) for name in ("starter", "starter_int8"))
    assert set(starter.components) == set(variant.components)
    changed = {role for role, entry in starter.models.items() if variant.models[role] != entry}
    for role in changed:
        assert deployment.catalogue[variant.models[role]].derived_from == starter.models[role]
    assert changed

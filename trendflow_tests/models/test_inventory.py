"""`models list`, `models verify` and the licence inventory."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from onnx import helper
from rich.console import Console

from trendflow.commands import models as commands
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.graph import ComponentGraph, load_graph
from trendflow.contracts.package_data import data_path
from trendflow.models.catalogue import NO_LICENCE, Catalogue
from trendflow.models.inventory import list_models, verify_models
from trendflow.models.licences import licence_rows, render_licences
from trendflow.models.profile_models import NOT_CHOSEN
from trendflow_tests.models.builders import catalogue_of, entry_for, onnx_bytes, place

DOUBLE = onnx_bytes([helper.make_node("Add", ["x", "x"], ["y"])])


@pytest.fixture(scope="module")
def graph() -> ComponentGraph:
    return load_graph(data_path("component_graph.yaml"))


def test_list_shows_the_state_of_every_file(tmp_path: Path) -> None:
    present, missing, mismatch = (entry_for(DOUBLE, name=name) for name in ("present", "missing", "mismatch"))
    place(tmp_path, present, DOUBLE)
    place(tmp_path, mismatch, DOUBLE + b"x")
    rows = list_models(catalogue_of(present, missing, mismatch), tmp_path).entries
    assert {row.name: row.digest_state for row in rows} == {
        "present": "present",
        "missing": "missing",
        "mismatch": "mismatch",
    }
    assert rows[0].bytes == len(DOUBLE)


def test_list_gives_a_reason_for_every_role_nobody_serves(catalogue: Catalogue, tmp_path: Path) -> None:
    roles = list_models(catalogue, tmp_path).roles
    assert {row.role for row in roles} == set(catalogue.roles)
    for row in roles:
        assert bool(row.entries) == (row.reason is None)
    assert {row.role for row in roles if row.entries} == {
        *("image_encoder", "object_detector", "face_detector", "face_landmarks", "depth", "optical_flow"),
        *("audio_encoder", "text_encoder", "scene_classifier", "prompt_encoder"),
    }


def test_list_says_how_to_get_what_is_missing(tmp_path: Path) -> None:
    source = {"kind": "url", "locator": "https://example.org/{revision}/{path}", "revision": "4f2c"}
    algorithm = {"kind": "algorithm", "locator": "opencv", "revision": "5.0"}
    entries = (
        entry_for(DOUBLE, name="built"),
        entry_for(DOUBLE, name="pulled", source=source),
        entry_for(DOUBLE, name="computed", engine="algorithm", files=[], source=algorithm),
    )
    rows = list_models(catalogue_of(*entries), tmp_path).entries
    assert [row.command for row in rows] == ["trendflow models build built", "trendflow models pull pulled", None]


def test_list_gives_the_reason_for_every_model_that_cannot_be_loaded(catalogue: Catalogue, tmp_path: Path) -> None:
    rows = {row.name: row.reason for row in list_models(catalogue, tmp_path).unpinned}
    assert set(rows) == set(catalogue.unpinned)
    assert "no recipe writes the network" in rows["raft_small_256"]


def test_every_component_is_in_a_profile_or_left_out_with_a_reason(
    catalogue: Catalogue, graph: ComponentGraph, tmp_path: Path
) -> None:
    found = {profile.name: profile for profile in list_models(catalogue, tmp_path, graph).profiles}
    assert set(found) == set(graph.profiles)
    for name, profile in found.items():
        left_out = {row.component: row.reason for row in profile.left_out}
        assert set(left_out) | set(graph.profiles[name].components) == set(graph.components)
        assert not set(left_out) & set(graph.profiles[name].components)
        assert all(left_out.values())
        assert {use.role: use.entry for use in profile.roles if use.entry} == dict(graph.profiles[name].models)
        for use in profile.roles:
            assert (use.entry is None) == (use.reason is not None) == (use.digest_state is None)
    starter = {row.component: row.reason for row in found["starter"].left_out}
    assert "its role depth has no model: not mapped: midas_v21_small_256, dpt_hybrid_384" in starter["core_depth_midas"]
    assert "places365_resnet50 (to be downloaded)" in starter["scene_classification"]
    optional = {use.role: use.reason for use in found["starter"].roles if use.entry is None}
    assert "No shot boundary model" in str(optional["shot_boundary"])


def test_a_left_out_component_names_what_it_needs_and_a_free_choice_is_called_one(
    catalogue: Catalogue, graph: ComponentGraph, tmp_path: Path
) -> None:
    starter = graph.profiles["starter"]
    kept = {
        name: row for name, row in starter.components.items() if name not in ("cut_detection", "loudness_extractor")
    }
    changed = replace(graph, profiles={"starter": replace(starter, components=kept)})
    (profile,) = list_models(catalogue, tmp_path, changed).profiles
    reasons = {row.component: row.reason for row in profile.left_out}
    assert reasons["loudness_extractor"] == NOT_CHOSEN
    assert reasons["scene_classification"].endswith("; it needs cut_detection")


def test_drafted_profiles_say_what_they_wait_for(catalogue: Catalogue, graph: ComponentGraph, tmp_path: Path) -> None:
    found = {draft.name: draft for draft in list_models(catalogue, tmp_path, graph).drafts}
    assert set(found) == set(graph.drafts.profiles)
    for name, draft in found.items():
        inherited = set(found[draft.extends].without_code) if draft.extends in found else set()
        assert set(draft.without_code) == set(graph.drafts.missing(name)) - inherited
        assert not any(catalogue.for_role(role) for role in draft.without_model)
    assert {"asr", "ocr", "face_emotion"} <= set(found["v1"].without_model)


@pytest.fixture
def no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRENDFLOW_HOME", "TRENDFLOW_MODELS"):
        monkeypatch.setenv(name, str(tmp_path))


@pytest.mark.usefixtures("no_home")
def test_the_command_prints_it_all_as_json(catalogue: Catalogue, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.list_models(as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["name"]: row["digest_state"] for row in found["entries"] if row["command"]} == {
        entry.name: "missing" for entry in catalogue if entry.files
    }
    assert set(found) == {"entries", "roles", "unpinned", "profiles", "drafts"}


@pytest.mark.usefixtures("no_home")
def test_the_tables_fit_a_hundred_columns(
    catalogue: Catalogue, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "out", Console(width=100))
    assert commands.list_models() == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    for name in (*catalogue.entries, *catalogue.unpinned):  # no name is folded
        assert any(name in line.split() for line in lines), name
    (pull,) = [line for line in lines if "trendflow models pull" in line]
    assert pull.startswith("missing ones come with: trendflow models pull ")


def test_verify_loads_what_it_verifies(tmp_path: Path) -> None:
    good = entry_for(DOUBLE, name="good")
    absent = entry_for(DOUBLE, name="absent")
    broken = entry_for(b"no model", name="broken")
    wide = [{"name": "x", "dtype": "float32", "shape": ["B", 5], "layout": "NC"}]
    other = entry_for(DOUBLE, name="other", inputs=wide)
    for entry, data in ((good, DOUBLE), (broken, b"no model"), (other, DOUBLE)):
        place(tmp_path, entry, data)
    catalogue = catalogue_of(good, absent, broken, other)
    found = {row.name: (row.digest_state, row.error_code) for row in verify_models(catalogue, tmp_path)}
    assert found == {
        "good": ("present", None),
        "absent": ("missing", "weights_missing"),
        "broken": ("present", "model_load_failed"),
        "other": ("present", "model_spec_invalid"),
    }
    assert [row.name for row in verify_models(catalogue, tmp_path, ["good"])] == ["good"]
    with pytest.raises(TrendFlowError, match="model_not_found"):
        verify_models(catalogue, tmp_path, ["nobody"])


def test_every_shipped_model_verifies(catalogue: Catalogue, models_dir: Path) -> None:
    built = [entry.name for entry in catalogue if entry.source.kind != "url"]
    assert [row.problem for row in verify_models(catalogue, models_dir, built)] == [None] * len(built)


def test_the_licence_inventory_is_current(catalogue: Catalogue) -> None:
    text = (data_path("models") / "MODEL_LICENSES.md").read_text(encoding="utf-8")
    assert text == render_licences(catalogue)


def test_the_licence_inventory_names_every_entry_once(catalogue: Catalogue) -> None:
    assert [row.entry for row in licence_rows(catalogue)] == sorted(catalogue.entries)
    table = render_licences(catalogue).splitlines()
    for entry in catalogue:
        (line,) = [line for line in table if line.startswith(f"| {entry.name} |")]
        assert entry.licence_spdx in line
        assert entry.licence_url in line
        assert f"| {entry.commercial_use} |" in line
        assert f"`{entry.weights_digest[:16]}`" in line


def test_every_entry_has_a_licence_and_a_digest(catalogue: Catalogue) -> None:
    for row in licence_rows(catalogue):
        assert row.licence_spdx != NO_LICENCE, row.entry
        assert row.licence_url.startswith("https://"), row.entry
        algorithm = catalogue[row.entry].engine == "algorithm"
        assert re.fullmatch("none" if algorithm else "[0-9a-f]{64}", row.weights_digest), row.entry


def test_no_shipped_weights_are_forbidden(catalogue: Catalogue) -> None:
    assert {entry.commercial_use for entry in catalogue} == {"allowed"}

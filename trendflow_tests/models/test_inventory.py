"""`models list`, `models verify` and the licence inventory."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import helper

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.package_data import data_path
from trendflow.models.catalogue import Catalogue
from trendflow.models.inventory import list_models, verify_models
from trendflow.models.licences import licence_rows, render_licences
from trendflow_tests.models.builders import catalogue_of, entry_for, onnx_bytes, place

DOUBLE = onnx_bytes([helper.make_node("Add", ["x", "x"], ["y"])])


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
        *("audio_encoder", "text_encoder"),
    }


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


def test_no_shipped_weights_are_forbidden(catalogue: Catalogue) -> None:
    assert {entry.commercial_use for entry in catalogue} == {"allowed"}

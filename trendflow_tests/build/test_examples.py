"""The examples of property tests depend on the test alone, not on what else its process has loaded."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import constants_from_module, is_local_module_file

LETTERS = [chr(0x10400 + number) for number in range(40)]  # the Deseret alphabet, which no module is written in
RARE = "".join(LETTERS[::4])


def test_no_literal_of_a_loaded_module_becomes_an_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if settings.get_current_profile_name() != "repeat":
        pytest.skip("who explores may draw them")
    file = tmp_path / "module.py"
    file.write_text(f"RARE = {RARE!r}\n", encoding="utf-8")
    spec = importlib.util.spec_from_file_location("module_with_a_rare_literal", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    assert is_local_module_file(str(file)), "it is a module that Hypothesis reads literals out of"
    assert RARE in constants_from_module(module)

    drawn: set[str] = set()

    @settings(max_examples=500)  # of which one in twenty would be a literal, and there is no other of these letters
    @given(st.text(LETTERS, min_size=len(RARE), max_size=len(RARE)))
    def draw(text: str) -> None:
        drawn.add(text)

    draw()
    assert len(drawn) > 100
    assert RARE not in drawn
    assert len(providers._get_local_constants()) == 0

"""Components reach nothing but their inputs. Import contracts cover packages; this covers built-ins and numpy."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

REACHING_OUT = {"open", "input", "print", "exec", "eval", "load", "save", "savez", "memmap", "fromfile", "tofile"} | {
    *("read_text", "read_bytes", "write_text", "write_bytes", "getenv", "environ", "urlopen", "imread", "imwrite"),
    *("now", "today", "utcnow", "default_rng", "urandom", "uuid4"),
}


def names_used(source: str) -> set[str]:
    """Names called or read as attributes; a local variable of the same name does not count."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found.add(node.func.id)
    return found


@pytest.mark.parametrize("statement", ["open('a')", "np.load('a')", "path.read_text()", "os.environ['A']"])
def test_the_check_sees_what_it_forbids(statement: str) -> None:
    assert names_used(statement) & REACHING_OUT


def test_components_open_no_file_and_read_no_clock(repo_root: Path) -> None:
    modules = [
        path
        for part in ("visual", "audio", "text", "dataset")
        for path in (repo_root / f"trendflow/components/{part}").rglob("*.py")
    ]
    assert len(modules) >= 6
    reaching = {path.name: names_used(path.read_text()) & REACHING_OUT for path in modules}
    assert {name: found for name, found in reaching.items() if found} == {}

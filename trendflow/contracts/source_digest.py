"""A digest of what Python source does, blind to comments, docstrings and formatting."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from trendflow.contracts.canonical import digest_of
from trendflow.contracts.errors import TrendFlowError


def source_digest(files: Iterable[Path]) -> str:
    """sha256 over the syntax trees of several files; their order and their folder do not matter.

    Raises `config_invalid` for a file that is not Python.
    """
    return digest_of(sorted([path.name, _tree_digest(path)] for path in files))


def _tree_digest(path: Path) -> str:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as exc:
        raise TrendFlowError("config_invalid", f"{path.name} is not valid Python.") from exc
    hasher = hashlib.sha256()
    for token in _tokens(tree):
        hasher.update(token.encode() + b"\0")
    return hasher.hexdigest()


def _tokens(value: object) -> Iterator[str]:
    """The tree in preorder. Empty fields are left out.

    `ast.dump` would not do: every Python release adds optional fields to nodes, and the digest would change with the
    interpreter instead of with the code.
    """
    if isinstance(value, ast.AST):
        yield f"({type(value).__name__}"
        for name, child in ast.iter_fields(value):
            if name == "body" and _takes_docstring(value):
                child = _without_docstring(child)
            if child is None or child == []:
                continue
            yield f".{name}"
            yield from _tokens(child)
        yield ")"
    elif isinstance(value, list):
        yield f"[{len(value)}"
        for item in value:
            yield from _tokens(item)
    else:
        yield f"{type(value).__name__} {value!r}"


def _takes_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    # A string that stands alone documents what precedes it (a module, function or attribute) and computes nothing.
    return [
        statement
        for statement in body
        if not (
            isinstance(statement, ast.Expr)
            and isinstance(statement.value, ast.Constant)
            and isinstance(statement.value.value, str)
        )
    ]

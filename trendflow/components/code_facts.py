"""What the code of a component says about itself: its docstrings, empty reasons, errors and the constants it reads.

Read from the syntax of its source files, so that documentation cannot promise what the code does not do. A paragraph
of any docstring there that begins with `Method:` is for whoever wants to compute a value again.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from trendflow.components import base
from trendflow.components.registry import source_files
from trendflow.contracts.errors import ERROR_RULES
from trendflow.contracts.vocab import EMPTY_REASONS

_METHOD = "Method:"


@dataclass(frozen=True)
class CodeFacts:
    """What is sorted has no order of its own. `errors`: pairs of code and message, `…` for what is filled in.

    `methods`: pairs of a topic, which is the first sentence of a helper module, and the paragraphs told there. What the
    component's own module tells comes first, without a topic.
    """

    purpose: str
    result: str
    methods: tuple[tuple[str, tuple[str, ...]], ...]
    empty_reasons: tuple[str, ...]
    errors: tuple[tuple[str, str], ...]
    threshold_sections: tuple[str, ...]


def code_facts(name: str, module: ModuleType | None) -> CodeFacts:
    """Facts about a component; `module` is None for the Segmenter, whose code is all of `trendflow.media`."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in source_files(name, module)}
    found = [node for tree in trees.values() for node in ast.walk(tree)]
    purpose, result = (None, None) if module is None else (module.__doc__, module.run.__doc__)
    # The Segmenter names reasons for others to hand on; its own artifact is never empty.
    reasons = set() if module is None else EMPTY_REASONS.intersection(_strings(found))
    return CodeFacts(
        purpose=_without_methods(purpose).removeprefix(f"{name}: "),
        result=_without_methods(result),
        methods=tuple(_methods(trees, None if module is None else Path(str(module.__file__)))),
        empty_reasons=tuple(sorted(reasons)),
        errors=tuple(sorted({*_errors(found), *_input_errors(found)})),
        threshold_sections=tuple(sorted(_sections(found))),
    )


def _paragraphs(docstring: str | None) -> list[str]:
    """The paragraphs of a docstring, each on one line."""
    return [" ".join(paragraph.split()) for paragraph in (docstring or "").strip().split("\n\n")]


def _without_methods(docstring: str | None) -> str:
    return "\n\n".join(text for text in _paragraphs(docstring) if not text.startswith(_METHOD))


def _methods(trees: Mapping[Path, ast.Module], own: Path | None) -> Iterator[tuple[str, tuple[str, ...]]]:
    for path in sorted(trees, key=lambda path: path != own):
        told = tuple(_told(trees[path]))
        if told:
            summary = _paragraphs(ast.get_docstring(trees[path]))[0]
            yield "" if path == own else summary.partition(". ")[0].removesuffix("."), told


def _told(tree: ast.Module) -> Iterator[str]:
    """Paragraphs of the docstrings that begin with `Method:`, without that word."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            for text in _paragraphs(ast.get_docstring(node)):
                if text.startswith(_METHOD):
                    yield text.removeprefix(_METHOD).strip()


def _strings(nodes: Sequence[ast.AST]) -> Iterator[str]:
    return (node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


def _errors(nodes: Sequence[ast.AST]) -> Iterator[tuple[str, str]]:
    """Code and message of every `TrendFlowError(…)` whose code is written out."""
    for node in nodes:
        if isinstance(node, ast.Call) and _called(node) == "TrendFlowError" and len(node.args) >= 2:
            code = node.args[0]
            if isinstance(code, ast.Constant) and code.value in ERROR_RULES:
                yield str(code.value), _message(node.args[1])


def _input_errors(nodes: Sequence[ast.AST]) -> Iterator[tuple[str, str]]:
    """The errors of `ComponentInputs.need_…` for the methods that are called."""
    methods = {
        node.name: node
        for node in ast.walk(ast.parse(Path(str(base.__file__)).read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("need_")
    }
    for name in {_called(node) for node in nodes if isinstance(node, ast.Call)} & set(methods):
        yield from _errors(list(ast.walk(methods[name])))


def _sections(nodes: Sequence[ast.AST]) -> set[str]:
    """Sections of the thresholds file that are bound by name."""
    return {
        str(node.args[0].value)
        for node in nodes
        if isinstance(node, ast.Call) and _called(node) == "bind" and isinstance(node.args[0], ast.Constant)
    }


def _called(call: ast.Call) -> str:
    target = call.func
    return target.attr if isinstance(target, ast.Attribute) else target.id if isinstance(target, ast.Name) else ""


def _message(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return "…"

"""Find the lines that the server can log at WARNING or above, by their templates, and those on the page for operators.

Strategy: the calls are read from the code (``ast``): ``warning``, ``error``, ``exception`` and ``critical`` of what is
named like a logger, and ``_write(logging.ERROR, ...)`` of the watchdog. A template is a text in the code, or several
between which the code chooses: a conditional expression, a name to which texts are assigned, a parameter to which
callers in the same module give texts. A template that cannot be found out is an error: nobody could look it up.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "operations.md"
TITLE = "## Every warning and error"

_LEVELS = frozenset({"warning", "error", "exception", "critical"})
_LIMITED = frozenset({"limited", "_limited", "_rarely"})
_LOGGERS = frozenset({"_log", "_LOG", "log", "logger", "_audit", "_defects"}) | _LIMITED

# The texts of others, or of the lines themselves: what logging is made of.
_PASSING = frozenset({"collab/telemetry/logs.py"})


class NoTemplate(AssertionError):
    """A line has no text in the code by which somebody could look it up."""


def logged() -> dict[str, list[str]]:
    """Give each template with the places in the code that log it, ``path:line``."""
    lines: dict[str, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "collab").rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name not in _PASSING:
            for template, number in templates(path.read_text(encoding="utf-8"), name):
                lines[template].append(f"{name}:{number}")
    return dict(lines)


def templates(code: str, name: str) -> list[tuple[str, int]]:
    """Give the templates in some code, with their lines; raises ``NoTemplate``, which names the file ``name``."""
    return list(_Module(ast.parse(code), name).lines())


def explained() -> list[str]:
    """Give the templates that the page has, in its order."""
    part = PAGE.read_text(encoding="utf-8").partition(f"\n{TITLE}\n")[2].partition("\n## ")[0]
    return [match[1].replace("\\|", "|") for match in re.finditer(r"^\| `(.+?)` \|", part, re.MULTILINE)]


class _Module:
    def __init__(self, tree: ast.Module, name: str) -> None:
        self._tree, self._name = tree, name
        self._functions: dict[ast.AST, ast.FunctionDef | ast.AsyncFunctionDef] = {}
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for node in ast.walk(function):
                    self._functions[node] = function  # the inmost one is walked last

    def lines(self) -> Iterator[tuple[str, int]]:
        for call in ast.walk(self._tree):
            if isinstance(call, ast.Call) and (text := _text_of(call)) is not None:
                for template in self._texts(text, call):
                    yield template, call.lineno

    def _texts(self, node: ast.expr, call: ast.AST) -> list[str]:
        match node:
            case ast.Constant(value=str() as text):
                return [text]
            case ast.IfExp(body=one, orelse=other):
                return [*self._texts(one, call), *self._texts(other, call)]
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return [a + b for a, b in product(self._texts(left, call), self._texts(right, call))]
            case ast.Name(id=name):
                if texts := list(self._assigned(name, call)):
                    return texts
        raise NoTemplate(f"{self._name}:{node.lineno}: {ast.unparse(node)} is no text")

    def _assigned(self, name: str, call: ast.AST) -> Iterator[str]:
        function = self._functions.get(call)
        for node in ast.walk(function or self._tree):
            match node:
                case ast.Assign(targets=[ast.Name(id=found)], value=value) if found == name:
                    yield from self._texts(value, call)
                case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
                    for target, value in zip(targets, values, strict=True):
                        if isinstance(target, ast.Name) and target.id == name:
                            yield from self._texts(value, call)
        if function is None:
            return
        names = [each.arg for each in function.args.args]
        if name not in names:
            return
        number = names.index(name) - (names[0] == "self")
        for other in ast.walk(self._tree):
            match other:
                case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called), args=args) if (
                    called == function.name and len(args) > number
                ):
                    yield from self._texts(args[number], other)


def _text_of(call: ast.Call) -> ast.expr | None:
    """Give what a call logs, if it logs at WARNING or above."""
    if not isinstance(call.func, ast.Attribute):
        return None
    args = call.args
    if call.func.attr == "_write" and args and ast.unparse(args[0]) in ("logging.ERROR", "logging.CRITICAL"):
        return args[1]
    by = call.func.value.func if isinstance(call.func.value, ast.Call) else call.func.value
    logger = by.id if isinstance(by, ast.Name) else by.attr if isinstance(by, ast.Attribute) else ""
    if logger == "get_logger":
        logger = "_log"
    if logger not in _LOGGERS:
        return None
    if call.func.attr == "log" and ast.unparse(args[0]) in ("logging.ERROR", "logging.WARNING"):
        return args[2] if logger in _LIMITED else args[1]
    if call.func.attr not in _LEVELS or not args:
        return None
    # A RateLimited takes a kind first; so two texts, of which the second one is the line.
    kinded = logger in _LIMITED or (len(args) > 1 and _is_kind(call))
    return args[1] if kinded else args[0]


def _is_kind(call: ast.Call) -> bool:
    """Tell whether ``self._log`` is a RateLimited: its lines begin with a kind, which has nothing to fill in."""
    first = call.args[0]
    return (
        ast.unparse(call.func).startswith("self._log.")
        and isinstance(first, ast.Constant)
        and "%" not in str(first.value)
    )

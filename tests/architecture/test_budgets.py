"""How large, how unchecked and how patient the code may be."""

import ast
import re
from pathlib import Path

from tests.architecture.sources import PACKAGES, functions, modules

_CODE = (*PACKAGES, "benchmarks", "examples")
_EXCEPTIONS = re.compile(r"#\s*(?:type:\s*ignore|noqa)\b(?P<rest>.*)")
_CODES_AND_REASON = re.compile(r"^(?:\[[\w, -]+\]|:\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*)\W+\w")


def test_no_module_has_more_than_400_lines() -> None:
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules(*_CODE, "tests")}

    assert {name: lines for name, lines in lengths.items() if lines > 400} == {}


def test_no_function_has_more_than_40_lines() -> None:
    lengths = {
        f"{name}.{function.name}": _body_lines(function)
        for name, path in modules(*_CODE)
        for function in functions(path)
    }

    assert {name: lines for name, lines in lengths.items() if lines > 40} == {}


def test_few_checks_are_switched_off_and_each_says_which_and_why() -> None:
    found = [
        (name, match["rest"])
        for name, path in modules(*_CODE, "tests")
        if path != Path(__file__)
        for match in _EXCEPTIONS.finditer(path.read_text(encoding="utf-8"))
    ]

    assert [place for place in found if not _CODES_AND_REASON.match(place[1])] == []
    assert len(found) <= 15


def test_a_test_waits_for_something_and_never_just_sleeps() -> None:
    sleeps = [
        f"{name}:{node.lineno}"
        for name, path in modules("tests")
        if path.name.startswith("test_")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "sleep"
    ]

    assert sleeps == []


def _body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body
    if ast.get_docstring(function) is not None:
        body = body[1:]
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0

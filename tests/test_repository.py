"""The house rules that no other tool checks."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "src").rglob("*.py"))

LONGEST_FUNCTION = 45


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_no_function_is_longer_than_a_screen(module):
    long = []
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            told = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            start = (first.end_lineno if told else node.lineno) or 0
            if (node.end_lineno or 0) - start > LONGEST_FUNCTION:
                long.append(node.name)
    assert not long


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_every_module_says_what_lives_in_it(module):
    assert ast.get_docstring(ast.parse(module.read_text()))


def test_nothing_in_the_package_can_execute_what_it_reads():
    forbidden = re.compile(r"\b(eval|exec|__import__)\(|\b(pickle|marshal|shelve)\b|(?<!\.)\byaml\b|shell=True")
    found = [
        f"{module.name}: {line.strip()}"
        for module in MODULES
        for line in module.read_text().splitlines()
        if forbidden.search(line) and not line.lstrip().startswith("#")
    ]
    assert not found

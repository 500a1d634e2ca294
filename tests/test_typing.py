"""The types of the public API, as users' type checkers see them."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

FILES = Path(__file__).parent / "typing"


def _mypy(file: Path, cache: Path) -> set[int]:
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--cache-dir", str(cache), file.name]
    answer = subprocess.run(command, cwd=FILES, capture_output=True, text=True, check=False)
    assert answer.returncode in {0, 1}, answer.stdout + answer.stderr
    return {int(line) for line in re.findall(rf"^{file.name}:(\d+): error:", answer.stdout, re.MULTILINE)}


def _pyright(file: Path, _: Path) -> set[int]:
    # Without --pythonpath it would look at whatever Python comes first on the PATH.
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", file.name]
    answer = subprocess.run(command, cwd=FILES, capture_output=True, text=True, check=False)
    assert answer.returncode in {0, 1}, answer.stdout + answer.stderr
    told = json.loads(answer.stdout)["generalDiagnostics"]
    return {one["range"]["start"]["line"] + 1 for one in told if one["severity"] == "error"}


def _need(checker: str) -> None:
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed")


CHECKERS = pytest.mark.parametrize(("checker", "reported"), [("mypy", _mypy), ("pyright", _pyright)])


@CHECKERS
def test_what_is_right_is_accepted(checker, reported, tmp_path):
    _need(checker)
    assert reported(FILES / "positive.py", tmp_path) == set()


@CHECKERS
def test_every_mistake_is_rejected_where_it_is_made(checker, reported, tmp_path):
    _need(checker)
    file = FILES / "negative.py"
    lines = file.read_text().splitlines()
    marked = {number for number, line in enumerate(lines, 1) if line.endswith("# E")}
    assert len(marked) >= 50
    found = reported(file, tmp_path)
    # What is wrong with a decorator is told on its line, or on that of the function below it.
    missed = {number for number in marked if not {number, number + 1} & found}
    false_alarms = {number for number in found if not {number, number - 1} & marked}
    assert (missed, false_alarms) == (set(), set())

"""A project in an empty folder, and the command line called in it."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from sapwood import registry
from sapwood.cli.main import run


class Result(NamedTuple):
    code: int
    out: str
    err: str


Sapwood = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder that the commands are called in; what they import from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    for name in ("SAPWOOD_APP", "SAPWOOD_TRACEBACK", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name, kept in list(vars(registry).items()):
        if isinstance(kept, dict) and not name.startswith("__"):
            monkeypatch.setattr(registry, name, type(kept)())
    yield tmp_path
    forget_modules_below(tmp_path)


def forget_modules_below(folder: Path) -> None:
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "") or "").startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture
def sapwood(folder: Path, capsys: pytest.CaptureFixture[str]) -> Sapwood:
    """Call one command line and return its exit code and what it wrote."""

    def call(*words: str) -> Result:
        # As if it were a process of its own: nothing is loaded yet.
        forget_modules_below(folder)
        capsys.readouterr()
        code = run(words)
        return Result(code, *capsys.readouterr())

    return call


@pytest.fixture
def project(folder: Path, sapwood: Sapwood) -> Path:
    """A folder that ``sapwood setup`` was called in, with three jobs."""
    assert sapwood("setup").code == 0
    (folder / "jobs" / "examples.py").write_text(
        """
from sapwood import Job


class WelcomeEmail(Job):
    def perform(self, user_id: int, locale: str = "en") -> None:
        print(f"welcome {user_id} {locale}")


class Fails(Job, max_attempts=2, queue="email"):
    def perform(self) -> None:
        raise ValueError("no such\\x1b[31m address")

    def backoff(self, attempt: int) -> float:
        return 3600


class Flags(Job):
    def perform(self, on: bool, ratio: float, name: str, ids: list[int]) -> None:
        print(on, ratio, name, ids)
"""
    )
    return folder

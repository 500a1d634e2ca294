"""Fixtures of databases on real servers, and of programs; what cannot be had skips its tests, and the run says so."""

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

import servers

KINDS = {
    "postgresql": ("PostgreSQL", servers.postgresql),
    "mysql": ("MariaDB", servers.mysql),
    "pgbouncer": ("pgbouncer", servers.pgbouncer),
}
PROGRAMS = {"systemd": "systemd-analyze", "cc": "cc"}

_asked: dict[str, str] = {}
"""What came of each kind of server that a test has asked for."""


def server(kind: str) -> servers.Server:
    """Return the server of a kind; without it skip the test, or fail it where the environment demands the server."""
    name, start = KINDS[kind]
    try:
        had = start()
    except servers.Unavailable as unavailable:
        _do_without(kind, name, str(unavailable))
    _asked[kind] = f"{had.name}: used"
    return had


def program(kind: str) -> str:
    """Return where a program is; without it skip the test, or fail it where the environment demands the program."""
    found = shutil.which(PROGRAMS[kind])
    if found is None:
        _do_without(kind, PROGRAMS[kind], "it is not installed")
    _asked[kind] = f"{PROGRAMS[kind]}: used"
    return found


def _do_without(kind: str, name: str, reason: str) -> NoReturn:
    demanded = kind in _demanded()
    first_line = reason.partition("\n")[0]
    _asked[kind] = f"{name}: {'missing' if demanded else 'skipped'} – {first_line}"
    if demanded:
        pytest.fail(f"{name} is demanded by SAPWOOD_TEST_REQUIRE, and missing: {reason}", pytrace=False)
    pytest.skip(f"{name}: {reason}")


@pytest.fixture
def database_url(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Make an empty database of a kind, "sqlite" or one of `KINDS`, and return its URL; dropped after the test."""
    made: list[tuple[servers.Server, str]] = []
    numbers = itertools.count(1)

    def make(kind: str) -> str:
        if kind == "sqlite":
            return f"sqlite:///{tmp_path}/database-{next(numbers)}.db"
        on = server(kind)
        url = on.new_database()
        made.append((on, url))
        return url

    yield make
    for on, url in made:
        on.drop_database(url)


@pytest.fixture
def postgresql_url(database_url: Callable[[str], str]) -> str:
    """The URL of an empty PostgreSQL database."""
    return database_url("postgresql")


@pytest.fixture
def mysql_url(database_url: Callable[[str], str]) -> str:
    """The URL of an empty MariaDB database."""
    return database_url("mysql")


@pytest.fixture
def pgbouncer_url(database_url: Callable[[str], str]) -> str:
    """The URL of an empty PostgreSQL database behind a pgbouncer in transaction mode."""
    return database_url("pgbouncer")


@pytest.fixture
def systemd_analyze() -> str:
    """The program that checks units of systemd."""
    return program("systemd")


def pytest_configure() -> None:
    if unknown := _demanded() - {"sqlite", *KINDS, *PROGRAMS}:
        known = ", ".join(["sqlite", *KINDS, *PROGRAMS])
        raise pytest.UsageError(f"SAPWOOD_TEST_REQUIRE knows {known}; not {', '.join(sorted(unknown))}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    # A process of pytest-xdist tells the one that started it.
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["asked"] = _asked


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    _asked.update(getattr(node, "workeroutput", {}).get("asked", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _asked:
        terminalreporter.section("servers and programs")
        for kind in (*KINDS, *PROGRAMS):
            if kind in _asked:
                terminalreporter.line(_asked[kind])


def pytest_unconfigure() -> None:
    servers.end()


def _demanded() -> set[str]:
    return {kind.strip() for kind in os.environ.get("SAPWOOD_TEST_REQUIRE", "").split(",") if kind.strip()}

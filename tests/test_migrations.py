"""Two releases on one database: the new one brings the tables up to date while workers of the old one go on."""

import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import until, worker_record
from sapwood.adapters.migrations import STEPS
from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
from sapwood.errors import SchemaOutdated
from sapwood.record import JobDraft

PROGRAM = Path(__file__).parent / "programs" / "release_worker.py"
SERVERS = ["postgresql", "mysql"]
KINDS = ["sqlite", *SERVERS]


class Releases:
    """A database that the old release has made, and workers of both releases on it."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._folder = folder
        self._effects = sqlite3.connect(folder / "effects.db", isolation_level=None)
        self._effects.execute("PRAGMA journal_mode = WAL")
        self._effects.execute("CREATE TABLE effects (number INTEGER, release TEXT)")
        self._processes: list[subprocess.Popen[str]] = []
        self._jobs = 0

    def start(self, release: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, PROGRAM, self._url, self._folder / "effects.db", release],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._processes.append(process)
        assert process.stdout.readline() == "there\n"
        return process

    def enqueue(self, adapter: SQLAlchemyAdapter, more: int) -> None:
        numbers = range(self._jobs, self._jobs + more)
        adapter.enqueue([JobDraft(job="release.effect", args=f'{{"number": {number}}}') for number in numbers])
        self._jobs += more

    def keep_busy(self, adapter: SQLAlchemyAdapter, holds: Callable[[], bool]) -> None:
        """Enqueue some more jobs whenever none is left, until something holds."""

        def looked() -> bool:
            if not adapter.counts():
                self.enqueue(adapter, 20)
            return holds()

        until(adapter, looked)

    def done(self, release: str) -> int:
        return self._effects.execute("SELECT count(*) FROM effects WHERE release = ?", (release,)).fetchone()[0]

    def each_was_done_once(self) -> bool:
        numbers = Counter(number for (number,) in self._effects.execute("SELECT number FROM effects"))
        assert not numbers or max(numbers.values()) == 1
        return set(numbers) == set(range(self._jobs))

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()
        self._effects.close()


@pytest.fixture
def releases_on(database_url, tmp_path):
    """Make a database of a kind, with releases on it."""
    made = []

    def make(kind: str) -> tuple[Releases, SQLAlchemyAdapter]:
        url = database_url(kind)
        made.append((Releases(url, tmp_path), SQLAlchemyAdapter(url)))
        return made[-1]

    yield make
    for releases, adapter in made:
        releases.close()
        adapter.close()


def ended(process: subprocess.Popen[str]) -> int:
    process.terminate()
    return process.wait()


@pytest.mark.parametrize("kind", KINDS)
def test_workers_of_two_releases_share_the_jobs_while_the_tables_are_brought_up_to_date(kind, releases_on):
    releases, adapter = releases_on(kind)
    old = releases.start("old")
    assert adapter.pending_migrations() == [step.name for step in STEPS[1:]], "the tables are those of the old release"
    if kind in SERVERS:
        releases.enqueue(adapter, 200)
        until(adapter, lambda: releases.done("old") > 0)
    # On SQLite the first verb of the new release does the same.
    assert adapter.migrate() == [step.name for step in STEPS[1:]]
    releases.enqueue(adapter, 200)
    new = releases.start("new")
    before = releases.done("old")
    releases.keep_busy(adapter, lambda: releases.done("new") > 0 and releases.done("old") > before)
    assert sorted(worker.release == "0.1" for worker in adapter.workers()) == [False, True]
    assert ended(new) == 0
    before = releases.done("old")
    releases.enqueue(adapter, 50)
    until(adapter, releases.each_was_done_once)
    assert releases.done("old") >= before + 50, "it goes on"
    assert ended(old) == 0
    assert (adapter.counts(), adapter.workers()) == ({}, [])


@pytest.mark.parametrize("kind", SERVERS)
def test_a_new_worker_waits_for_the_migration_and_the_application_does_not(kind, releases_on):
    releases, adapter = releases_on(kind)
    old = releases.start("old")
    with pytest.raises(SchemaOutdated, match=STEPS[1].name) as refused:
        adapter.register(worker_record())
    assert "sapwood migrate" in refused.value.mend
    releases.enqueue(adapter, 10)
    until(adapter, releases.each_was_done_once)
    assert ended(old) == 0
    adapter.migrate()
    adapter.register(worker_record("new"))
    assert adapter.beat(["new"]) == {"new"}
    adapter.unregister("new")

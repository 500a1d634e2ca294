"""Real processes and servers, really killed: nothing is lost, and nothing is done again beyond what was running."""

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

import plugin_servers
from conftest import until
from sapwood.adapters.base import JobFilter
from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
from sapwood.errors import StoreError
from sapwood.lifecycle import Trace
from sapwood.page import Claim, read_page
from sapwood.record import JobDraft, JobState, WorkerRecord

JOBS = 2_400
WORKERS = 4
KILLS = 30
SEED = 20_261_123

PROGRAM = Path(__file__).parent / "programs" / "crash_worker.py"

pytestmark = pytest.mark.timeout(240)


class Load:
    """Workers on a store full of jobs, and what came of the jobs."""

    def __init__(self, url: str, folder: Path) -> None:
        self.adapter = SQLAlchemyAdapter(url)
        self.adapter.migrate()
        self._url = url
        self._folder = folder
        (folder / "pages").mkdir()
        self._effects = sqlite3.connect(folder / "effects.db", isolation_level=None)
        self._effects.execute("PRAGMA journal_mode = WAL")
        self._effects.execute("CREATE TABLE effects (number INTEGER, attempt INTEGER)")
        self._effects.execute("CREATE TABLE claims (at REAL)")
        self.jobs = 0
        self.enqueue(JOBS)
        self.workers = [self.start() for _ in range(WORKERS)]

    def enqueue(self, more: int) -> None:
        numbers = range(self.jobs, self.jobs + more)
        self.adapter.enqueue([JobDraft(job="crash.effect", args=f'{{"number": {number}}}') for number in numbers])
        self.jobs += more

    def start(self) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, PROGRAM, self._url, self._folder / "effects.db", self._folder / "pages"],
            stderr=subprocess.DEVNULL,
        )

    def done(self) -> int:
        return self._effects.execute("SELECT count(*) FROM effects").fetchone()[0]

    def numbers(self) -> list[int]:
        return [number for (number,) in self._effects.execute("SELECT number FROM effects")]

    def claimed_after(self, moment: float) -> float | None:
        """Return when jobs were claimed first after a moment, by the clock that all processes share."""
        return self._effects.execute("SELECT min(at) FROM claims WHERE at > ?", (moment,)).fetchone()[0]

    def kill(self, victim: int) -> int:
        """Kill a worker and take its jobs back; return how many it had started and not settled, by its own notes."""
        process = self.workers[victim]
        process.kill()
        process.wait()
        # Asked only now: until it was dead it might still have made its row known.
        mine = [worker for worker in self.adapter.workers() if worker.pid == process.pid]
        unsettled = 0
        for worker in mine:
            notes = self._notes(worker)
            if notes is None:
                # Killed after its row was made and before its page was: it cannot have claimed yet.
                running = self.adapter.jobs(JobFilter(states=[JobState.RUNNING]), limit=JOBS)
                assert [job.id for job in running if job.locked_by == worker.id] == []
                notes = {}
            unsettled += len(notes)
            until(self.adapter, lambda worker=worker, notes=notes: self._taken_back(worker.id, notes))
        self.workers[victim] = self.start()
        return unsettled

    def _notes(self, worker: WorkerRecord) -> Mapping[Claim, Trace] | None:
        if self._url.startswith("sqlite"):
            assert self.adapter.is_dead(worker), "its lock proves it"
            return self.adapter.notes(worker)
        path = self._folder / "pages" / worker.id
        if not path.exists():
            return None
        page = os.open(path, os.O_RDONLY)
        try:
            return read_page(page)
        finally:
            os.close(page)

    def _taken_back(self, worker: str, notes) -> bool:
        """Rescue; a server may still hold the dead worker's last transaction for a moment."""
        gone = self.adapter.rescue(worker, notes=notes) is not None
        return gone or worker not in {living.id for living in self.adapter.workers()}

    def all_are_ready(self) -> bool:
        """Say whether every living worker is registered, and none of the dead."""
        living = {process.pid for process in self.workers}
        known = self.adapter.workers()
        for worker in known:
            if worker.pid not in living:
                # A server may commit a row after the process that sent it was killed: no claim can have followed.
                self.adapter.rescue(worker.id, notes={})
        return {worker.pid for worker in known} == living

    def stop(self) -> list[int]:
        for worker in self.workers:
            worker.terminate()
        codes = [worker.wait() for worker in self.workers]
        self._effects.close()
        return codes


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mysql"])
def test_killed_workers_lose_no_job_and_repeat_only_what_they_had_started(kind, database_url, tmp_path):
    chance = random.Random(SEED)
    load = Load(database_url(kind), tmp_path)
    kills = unsettled = 0
    try:
        while kills < KILLS:
            if load.jobs - load.done() < JOBS // 4:
                load.enqueue(JOBS // 4)
            mark = load.done() + chance.randrange(40)
            until(load.adapter, lambda mark=mark: load.done() >= mark)
            unsettled += load.kill(chance.randrange(WORKERS))
            kills += 1
        until(load.adapter, lambda: not load.adapter.counts(), seconds=60)
        # Those that were started last are only now getting ready to be stopped.
        until(load.adapter, load.all_are_ready)
        numbers = load.numbers()
    finally:
        codes = load.stop()

    assert set(numbers) == set(range(load.jobs)), "none lost"
    repeats = len(numbers) - len(set(numbers))
    assert repeats <= unsettled, f"{repeats} repeats, {unsettled} started and unsettled at {kills} kills"
    assert codes == [0] * WORKERS, "those that lived ended in good order"
    assert load.adapter.workers() == []
    load.adapter.close()


@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
def test_a_server_that_crashes_loses_no_job_and_has_none_done_twice(kind, database_url, tmp_path):
    load = Load(database_url(kind), tmp_path)
    server = plugin_servers.server(kind)
    back: list[float] = []
    # One that finds no server when it begins says so and ends: they begin before the first crash.
    until(load.adapter, load.all_are_ready)
    try:
        for crash in range(1, 6):
            until(_Patient(load.adapter), lambda crash=crash: load.done() >= crash * JOBS // 8)
            server.crash()
            down = time.monotonic()
            server.start()
            up = time.monotonic()
            until(_Patient(load.adapter), lambda down=down: load.claimed_after(down) is not None)
            back.append(load.claimed_after(down) - up)
        until(_Patient(load.adapter), lambda: load.done() >= JOBS, seconds=60)
        until(_Patient(load.adapter), lambda: not _counts(load.adapter), seconds=60)
        numbers = load.numbers()
    finally:
        codes = load.stop()

    assert sorted(numbers) == list(range(JOBS)), "the outcome is repeated, never the job"
    assert codes == [0] * WORKERS, "no worker ended for want of its server"
    assert max(back) <= 5, "claims go on within five seconds of its return"
    load.adapter.close()


class _Patient:
    """Lets a test wait without listening: the server that would tell is the one that crashes."""

    def __init__(self, adapter) -> None:
        self._adapter = adapter

    def listen(self, wake):
        return lambda: None


def _counts(adapter) -> object:
    try:
        return adapter.counts()
    except StoreError:
        return "not yet back"

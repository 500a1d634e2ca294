"""Real processes, really killed: nothing is lost, and nothing is done again beyond what was running."""

import os
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

from conftest import until
from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
from sapwood.page import read_page
from sapwood.record import JobDraft

JOBS = 2_400
WORKERS = 4
KILLS = 40
SEED = 20_261_123

PROGRAM = Path(__file__).parent / "programs" / "crash_worker.py"


def pages_of(adapter: SQLAlchemyAdapter, pid: int) -> dict[str, int]:
    """Open the pages of a process's workers: whoever takes their jobs back removes the files."""
    folder = adapter._dialect._folder
    return {worker.id: os.open(folder / worker.id, os.O_RDONLY) for worker in adapter.workers() if worker.pid == pid}


def test_killed_workers_lose_no_job_and_repeat_only_what_they_had_started(  # noqa: PLR0915 - one story
    adapter, database, tmp_path
):
    chance = random.Random(SEED)
    effects = sqlite3.connect(tmp_path / "effects.db", isolation_level=None)
    effects.execute("PRAGMA journal_mode = WAL")
    effects.execute("CREATE TABLE effects (number INTEGER, attempt INTEGER)")

    def done() -> int:
        return effects.execute("SELECT count(*) FROM effects").fetchone()[0]

    def start() -> subprocess.Popen:
        return subprocess.Popen([sys.executable, PROGRAM, database, tmp_path / "effects.db"])

    adapter.enqueue([JobDraft(job="crash.effect", args=f'{{"number": {number}}}') for number in range(JOBS)])
    workers = [start() for _ in range(WORKERS)]
    kills = unsettled = 0
    try:
        while kills < KILLS and adapter.counts():
            mark = done() + chance.randrange(60)
            until(adapter, lambda mark=mark: done() >= mark or not adapter.counts())
            victim = chance.randrange(WORKERS)
            pages = pages_of(adapter, workers[victim].pid)
            workers[victim].kill()
            workers[victim].wait()
            kills += 1
            for worker, page in pages.items():
                notes = read_page(page)
                os.close(page)
                assert notes is not None
                unsettled += len(notes)
                # A worker that has just started looks for the dead, and may have been quicker.
                adapter.rescue(worker, notes=notes)
            workers[victim] = start()
        until(adapter, lambda: not adapter.counts(), seconds=60)
    finally:
        for worker in workers:
            worker.terminate()
        codes = [worker.wait() for worker in workers]

    numbers = [number for (number,) in effects.execute("SELECT number FROM effects")]
    effects.close()
    repeats = len(numbers) - len(set(numbers))
    assert set(numbers) == set(range(JOBS)), "none lost"
    assert repeats <= unsettled, f"{repeats} repeats, {unsettled} started and unsettled at {kills} kills"
    assert kills == KILLS
    assert codes == [0] * WORKERS, "those that lived ended in good order"
    assert adapter.workers() == []

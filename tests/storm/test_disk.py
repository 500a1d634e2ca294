"""Disks that are full, and stores that take no writes: no outcome is lost, no job runs again for it, work resumes.

The sabotage: a build that runs a job again where its outcome could not be written must be found.
"""

import os
import sqlite3
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest
from claims import RUNS_AGAIN
from sqlalchemy import create_engine, make_url

import servers
from background import Project, wait_until
from sapwood.errors import StoreFull, StoreReadOnly, StoreUnavailable

pytestmark = pytest.mark.timeout(3600)

WORKERS = 2
CONCURRENCY = 5
JOBS = 100


@pytest.fixture
def disk():
    """A small file system in memory; without the right to mount one the test is skipped."""
    mounted = []

    def mount(megabytes):
        folder = Path(tempfile.mkdtemp(prefix="sapwood-disk-"))
        # Servers run as somebody else.
        folder.chmod(0o755)
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0777", "none", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("a small disk: there is no mount here")
        if done.returncode:
            pytest.skip(f"a small disk: {done.stderr.strip() or 'mount is refused'}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


def fill(folder: Path) -> Path:
    """Leave no byte free; return the file that took the room."""
    filler = folder / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with suppress(OSError):
                while file.write(b"\0" * size) == size:
                    pass
    assert os.statvfs(folder).f_bavail == 0
    return filler


def passes(seconds):
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= until, seconds=seconds + 60)


def state(project):
    return project.status()["supervisor"]["state"]


class Hold:
    """A project whose store refuses writes for a while: what was done meanwhile, and how soon work went on."""

    def __init__(self, project):
        self.project = project
        self.enqueued = 0
        self.took = 0.0

    def add(self, count, *, seconds=0.0):
        """Enqueue jobs."""
        numbers = range(self.enqueued, self.enqueued + count)
        self.project.enqueue("effect", *numbers, seconds=seconds)
        self.enqueued += count

    def begin(self):
        """Have jobs run."""
        project = self.project
        project.start("-n", str(WORKERS), "-c", str(CONCURRENCY))
        self.add(JOBS, seconds=0.05)
        wait_until(lambda: project.counted() >= CONCURRENCY, seconds=60, about="jobs to run")
        self.pids = {worker.pid for worker in project.workers()}

    def refused(self, error):
        """Enqueue until that is refused, by the right error; what was taken counts."""
        with pytest.raises(error) as told:
            self._add_on()
        assert told.value.why
        assert told.value.mend

    def _add_on(self):
        while True:
            self.add(1)

    def go_on(self, allow):
        """Let it be written again; wait until work goes on, and is done."""
        project = self.project
        settled = self._left()
        allow()
        self.took = wait_until(lambda: self._left() < settled or not settled, seconds=60, about="work to go on")
        wait_until(lambda: state(project) == "ready", seconds=60, about="it to be ready")
        self.add(10)
        wait_until(lambda: not project.states(), seconds=120, about="all to be done")

    def _left(self):
        with suppress(StoreUnavailable):
            return sum(self.project.states().values())
        return 1_000_000

    def check(self, size, *, ended=False):
        """See that every job was done, and none twice; that no worker ended; that the log tells of it and no more."""
        project = self.project
        assert sorted(number for number, _, _ in project.effects()) == list(range(self.enqueued))
        assert ({worker.pid for worker in project.workers()} == self.pids) is not ended
        assert self.took <= 5 + (5 if size.scale < 1 else 0)
        assert 0 < project.log().count("the store failed") <= 5 * (WORKERS + 2)
        assert project.stop().returncode == 0


def sqlite_left_full(hold, disk):
    """Leave no room, not even in the write-ahead log that was made before."""
    path = make_url(hold.project.url).database
    connection = sqlite3.connect(path, isolation_level=None, timeout=30)
    for _ in range(100):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        filler = fill(disk)
        try:
            hold.add(1)
        except StoreFull:
            connection.close()
            return filler
    raise AssertionError("there is always room")


def test_a_full_disk_under_sqlite_costs_no_outcome_and_no_second_run(tmp_path, disk, size, capsys):
    folder = disk(16)
    project = Project(tmp_path / "project", f"sqlite:///{folder}/jobs.db", scale=size.scale)
    try:
        hold = Hold(project)
        hold.begin()
        filler = sqlite_left_full(hold, folder)
        hold.refused(StoreFull)
        wait_until(lambda: state(project) == "not ready", seconds=60, about="it to say that it is not ready")
        # Longer than a fence: on SQLite none acts, for nobody takes the jobs of workers that live.
        passes(60 * size.scale)
        assert state(project) == "not ready"
        done, left = project.counted(), sum(project.states().values())
        assert done > hold.enqueued - left, "outcomes are waiting"
        hold.go_on(filler.unlink)
        hold.check(size)
        (verdict,) = sqlite3.connect(make_url(project.url).database).execute("PRAGMA integrity_check").fetchone()
        assert verdict == "ok"
    finally:
        project.end()
    with capsys.disabled():
        print(
            f"\nsqlite: disk full for {60 * size.scale:.0f} s, {hold.enqueued} jobs, "
            f"{done - hold.enqueued + left} outcomes kept, lost 0, done again 0, integrity ok; "
            f"work went on after {hold.took:.2f} s"
        )


def test_a_build_that_runs_the_job_again_is_found(tmp_path, disk, size):
    folder = disk(16)
    project = Project(tmp_path / "project", f"sqlite:///{folder}/jobs.db", scale=size.scale, more=RUNS_AGAIN)
    try:
        hold = Hold(project)
        hold.begin()
        filler = sqlite_left_full(hold, folder)
        wait_until(lambda: len(project.effects()) > len({number for number, _, _ in project.effects()}), seconds=60)
        filler.unlink()
    finally:
        project.end()


def test_a_sqlite_file_that_cannot_be_written_is_named_and_served_when_it_can(tmp_path, disk, size):
    folder = disk(16)
    project = Project(tmp_path / "project", f"sqlite:///{folder}/jobs.db", scale=size.scale)
    try:
        hold = Hold(project)
        hold.add(20)
        project.adapter.close()
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        hold.refused(StoreReadOnly)
        refused = project.call("workoff")
        assert refused.returncode != 0
        assert "cannot be written" in refused.stderr
        subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
        # The same adapter, whose connections were opened where nothing could be written.
        hold.add(1)
        assert project.call("workoff").returncode == 0
        assert project.counted() == hold.enqueued
    finally:
        project.end()


def _read_only(server, value):
    engine = create_engine(server.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("SET default_transaction_read_only = off")
        connection.exec_driver_sql(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
        connection.exec_driver_sql("SELECT pg_reload_conf()")
    engine.dispose()


def test_a_read_only_postgresql_costs_no_outcome_and_no_second_run(tmp_path, disk, size, capsys):
    server = servers.postgresql_on(disk(256))
    project = None
    try:
        project = Project(tmp_path / "project", server.new_database(), scale=size.scale)
        hold = Hold(project)
        hold.begin()
        _read_only(server, "on")
        wait_until(lambda: state(project) == "not ready", seconds=60, about="it to say that it is not ready")
        hold.refused(StoreReadOnly)
        passes(20 * size.scale)
        hold.go_on(lambda: _read_only(server, "off"))
        hold.check(size)
    finally:
        if project is not None:
            project.end()
        server.stop()
    with capsys.disabled():
        print(f"\n{server.name}: read-only, {hold.enqueued} jobs, none done again; on after {hold.took:.2f} s")


def test_a_full_disk_under_postgresql_costs_no_outcome_and_no_second_run(tmp_path, disk, size, capsys):
    folder = disk(256)
    server = servers.postgresql_on(folder)
    scale = max(size.scale, 1 / 4)
    project = None
    try:
        project = Project(tmp_path / "project", server.new_database(), scale=scale)
        hold = Hold(project)
        hold.begin()
        filler = fill(folder)
        hold.refused((StoreFull, StoreUnavailable))
        passes(10 * scale)
        crashed = server.has_ended

        def allow():
            filler.unlink()
            # One that cannot write its log ends itself; whoever looks after it starts it again.
            if server.has_ended:
                server.start()

        hold.go_on(allow)
        hold.check(size)
        engine = create_engine(project.url)
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM background_jobs").scalar_one() == 0
        engine.dispose()
    finally:
        if project is not None:
            project.end()
        server.stop()
    with capsys.disabled():
        print(
            f"\n{server.name}: disk full{', the server ended itself' if crashed else ''}, {hold.enqueued} jobs, "
            f"none done again; work went on after {hold.took:.2f} s"
        )

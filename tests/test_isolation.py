"""Isolated jobs: each run is a process of its own, whose end harms nobody else and is certain."""

import os
import resource
import signal
import subprocess
import sys

import psutil
import pytest

from background import Project, wait_until
from sapwood import Job, MemoryAdapter, Sapwood, Worker
from sapwood.errors import ConfigurationError
from sapwood.record import JobState

pytestmark = pytest.mark.timeout(120)

JOBS = """
import asyncio
import ctypes
import logging
import subprocess


class Isolated(Job, isolated=True, max_attempts=1):
    pass


class Good(Isolated, name="good", keep=True):
    def perform(self, number: int) -> str:
        print("printed by", number)
        self.logger.info("logged by %d", number)
        logging.getLogger("elsewhere").warning("warned by %d", number)
        is_main = threading.current_thread() is threading.main_thread()
        return f"{os.getpid()} {os.getpgrp()} {self.context.attempt} {is_main}"


class GoodAsync(Isolated, name="good_async", keep=True):
    async def perform(self, number: int) -> int:
        await asyncio.sleep(0)
        return os.getpid()


class Raises(Isolated, name="raises"):
    def perform(self, number: int) -> None:
        raise ValueError("bad luck")


class Leaves(Isolated, name="leaves"):
    def perform(self, number: int) -> None:
        os._exit(0)


class Crashes(Isolated, name="crashes"):
    def perform(self, number: int) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)


class Greedy(Isolated, name="greedy", memory_limit=256 * 1024**2):
    def perform(self, number: int) -> None:
        kept = []
        while True:
            kept.append(bytearray(1024**2))


class Closes(Isolated, name="closes"):
    def perform(self, number: int) -> None:
        os.closerange(0, 1000)


class Late(Isolated, name="late", max_runtime=0.3):
    # A signal ends a sleep: no grace is needed.
    def perform(self, number: int) -> None:
        time.sleep(3600)


class LateAsync(Isolated, name="late_async", max_runtime=0.3):
    async def perform(self, number: int) -> None:
        await asyncio.sleep(3600)


class Swallows(Isolated, name="swallows", max_runtime=0.3):
    def perform(self, number: int) -> None:
        note(number, 1, f"pid {os.getpid()}")
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
        note(number, 1, f"pid {child.pid}")
        while True:
            try:
                while True:
                    time.sleep(0.001)
            except BaseException:
                pass


class Hogs(Isolated, name="hogs", max_runtime=0.3):
    def perform(self, number: int) -> None:
        note(number, 1, f"pid {os.getpid()}")
        sum(range(10**15))


class LeavesChild(Isolated, name="leaves_child"):
    def perform(self, number: int) -> None:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
        note(number, 1, f"pid {child.pid}")


class Waits(Job, name="waits", isolated=True):
    def perform(self, number: int) -> None:
        note(number, self.context.attempt, f"pid {os.getpid()}")
        note(number, self.context.attempt, "begun")
        time.sleep(3600)


class Asks(Job, name="asks", isolated=True):
    def perform(self, number: int) -> None:
        note(number, self.context.attempt, "begun")
        while not self.context.stopping:
            time.sleep(0.01)
        note(number, self.context.attempt, "done")
"""


@pytest.fixture
def project(tmp_path, database_url):
    project = Project(tmp_path / "project", database_url("sqlite"), more=JOBS)
    yield project
    project.end()


def living(project) -> list[int]:
    """Return the processes of jobs, and what they started, that still live."""
    found = project._effects.execute("SELECT what FROM effects WHERE what LIKE 'pid %'")
    return [pid for (what,) in found if _lives(pid := int(what.split()[1]))]


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def test_whatever_happens_in_a_process_of_its_own_is_one_failed_try_with_its_reason(project):
    reasons = {
        "raises": "ValueError: bad luck",
        "leaves": "its process ended with no outcome: exit code 0",
        "crashes": "its process ended with no outcome: killed by SIGSEGV",
        "greedy": "MemoryError: beyond 268435456 bytes, its limit",
        "closes": "its process ended with no outcome: exit code 1",
        "late": "timeout: not finished within 0.3 s",
        "late_async": "timeout: not finished within 0.3 s",
        "swallows": "timeout: not finished within 0.3 s",
        "hogs": "timeout: not finished within 0.3 s",
    }
    jobs = {kind: project.enqueue(kind, 1, max_attempts=1)[0] for kind in reasons}
    project.enqueue("effect", *range(20))
    done = project.call("workoff", "-c", "3")
    assert done.returncode == 0, done.stderr
    records = {kind: project.adapter.get(job) for kind, job in jobs.items()}
    assert {kind: record.last_error for kind, record in records.items()} == reasons
    assert {(record.state, record.attempts, record.deaths) for record in records.values()} == {(JobState.FAILED, 1, 0)}
    assert len(project.effects()) == 20
    assert len({pid for _, _, pid in project.effects()}) == 1, "the worker has outlived them all"
    wait_until(lambda: not living(project), about="all that they started to be gone")


def test_an_isolated_job_runs_in_the_main_thread_of_a_process_with_a_group_of_its_own(project):
    (good,) = project.enqueue("good", 7)
    (good_async,) = project.enqueue("good_async", 7)
    project.enqueue("leaves_child", 7)
    done = project.call("workoff")
    pid, group, attempt, is_main = project.adapter.get(good).result.strip('"').split()
    assert (pid == group, attempt, is_main) == (True, "1", "True")
    assert int(project.adapter.get(good_async).result) not in {int(pid), os.getpid()}
    # What it writes appears where the worker's lines do.
    assert "printed by 7" in done.stdout
    assert "INFO    logged by 7" in done.stderr
    assert done.stderr.count("logged by 7") == 1
    assert done.stderr.count("warned by 7") == 1
    assert done.stderr.count("done in") == 3
    wait_until(lambda: not living(project), about="what it left to be gone")


def outlast(project) -> None:
    """Have an isolated job outlast the end of a supervisor: its try is given back, once its process is dead."""
    project.start("-n", "1", "--shutdown-timeout", "0.3")
    (job,) = project.enqueue("waits", 1)
    wait_until(lambda: project.counted("begun") == 1)
    assert project.stop().returncode == 0
    check_released(project, job)
    assert "given back after" in project.log(), "by the worker itself"


def outlast_stand_alone(project) -> None:
    """Have it outlast the end of a worker that has no supervisor."""
    (job,) = project.enqueue("waits", 1)
    worker = subprocess.Popen(
        [sys.executable, "-m", "sapwood", "work", "--shutdown-timeout", "0.3"],
        cwd=project.folder,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        wait_until(lambda: project.counted("begun") == 1)
        worker.send_signal(signal.SIGTERM)
        _, said = worker.communicate(timeout=30)
    finally:
        worker.kill()
        worker.communicate()
    assert worker.returncode == 0, said
    check_released(project, job)
    assert project.adapter.workers() == []


def check_released(project, job: int) -> None:
    record = project.adapter.get(job)
    assert (record.state, record.attempts, record.deaths) == (JobState.READY, 0, 0)
    assert not living(project)


def test_an_isolated_job_that_outlasts_the_end_of_its_worker_is_released(project):
    outlast(project)


def test_an_isolated_job_that_outlasts_a_worker_without_a_supervisor_is_released(tmp_path, database_url):
    project = Project(tmp_path / "project", database_url("postgresql"), more=JOBS)
    try:
        outlast_stand_alone(project)
    finally:
        project.end()


def test_an_isolated_job_hears_that_its_worker_wants_to_stop(project):
    project.start("-n", "1")
    project.enqueue("asks", 1)
    wait_until(lambda: project.counted("begun") == 1)
    assert project.stop().returncode == 0
    assert project.counted() == 1


def test_an_isolated_job_ends_with_its_worker(project):
    project.start("-n", "1")
    project.enqueue("waits", 1, max_attempts=1)
    wait_until(lambda: project.counted("begun") == 1)
    (worker,) = project.workers()
    worker.kill()
    wait_until(lambda: not living(project), about="the job's process to be gone")
    wait_until(lambda: project.states() == {JobState.FAILED: 1})


PARENTS = """
class Parents(Job, name="parents", isolated=True):
    def perform(self, number: int) -> None:
        started = [
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], start_new_session=new)
            for new in (False, True)
        ]
        forked = os.fork()
        if not forked:
            time.sleep(3600)
        for child in (*(one.pid for one in started), forked):
            note(number, self.context.attempt, f"pid {child}")
        note(number, self.context.attempt, "begun")
        time.sleep(3600)
"""


def test_what_an_isolated_job_has_started_ends_with_its_worker_but_a_daemon(tmp_path, database_url):
    project = Project(tmp_path / "project", database_url("sqlite"), more=JOBS + PARENTS)
    try:
        project.start("-n", "1")
        project.enqueue("parents", 1, max_attempts=1)
        wait_until(lambda: project.counted("begun") == 1)
        (worker,) = project.workers()
        worker.kill()
        wait_until(lambda: project.states() == {JobState.FAILED: 1})
        wait_until(lambda: len(living(project)) == 1, about="its child to be gone")
        (daemon,) = living(project)
        assert os.getsid(daemon) == daemon
        os.kill(daemon, signal.SIGKILL)
    finally:
        project.end()


@pytest.mark.parametrize(
    ("where", "error"),
    [("file", "a new process would not find its app"), ("memory", "an isolated job cannot run")],
)
def test_what_a_new_process_cannot_find_is_one_clear_error(database, where, error):
    class Lost(Job, name="isolation.lost", isolated=True):
        def perform(self) -> None: ...

    app = Sapwood(MemoryAdapter() if where == "memory" else database)
    Lost.perform_later()
    Worker(app).workoff()
    (record,) = app.adapter().jobs()
    assert error in record.last_error
    assert record.attempts == 1
    app.close()


MOVED = """
from sqlalchemy import text


class Moved(Job, name="moved", adapter="new", isolated=True, transactional=True):
    def perform(self, number: int) -> None:
        self.context.connection.execute(text("SELECT 1"))
        note(number, self.context.attempt, "done")


app = Sapwood(adapters={{"default": {url!r}, "new": {url!r} + ".new"}})
"""


def test_an_isolated_job_is_settled_where_it_is_kept_though_its_class_has_moved(tmp_path, database_url):
    url = database_url("sqlite")
    project = Project(tmp_path / "project", url, more=MOVED.format(url=url))
    try:
        project.enqueue("moved", 1)
        done = project.call("workoff")
        assert done.returncode == 0, done.stderr
        assert project.adapter.jobs() == []
        assert project.counted() == 1
    finally:
        project.end()


def test_an_isolated_job_hears_of_a_stop_that_was_said_while_its_process_began(project):
    project.start("-n", "1")
    (worker,) = project.workers()
    project.enqueue("asks", 1)
    wait_until(worker.children, pause=0.001, about="its process to begin")
    assert project.stop().returncode == 0
    assert project.counted() == 1


def test_an_isolated_job_runs_beside_more_than_a_thousand_open_files(project):
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most[1], 4096), most[1]))
    try:
        (project.folder / "open_files.py").write_text("import os\n\nkept = [os.dup(0) for _ in range(1100)]\n")
        with (project.folder / "jobs.py").open("a") as code:
            # In the worker alone: the process of a job begins with the worker's numbers.
            code.write("\nif sys.argv[-1] == 'workoff':\n    import open_files\n")
        project.enqueue("asks", 1)
        worker = subprocess.Popen([sys.executable, "-m", "sapwood", "workoff"], cwd=project.folder)
        try:
            wait_until(lambda: project.counted("begun") == 1)
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(30) == 0
        finally:
            worker.kill()
            worker.wait()
        assert project.counted() == 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, most)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"memory_limit": 1024**3}, "only a process of its own can be limited"),
        ({"memory_limit": 5, "isolated": True}, "memory_limit"),
        ({"memory_limit": 1e9, "isolated": True}, "memory_limit"),
        ({"isolated": 1}, "isolated"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, error):
    with pytest.raises(ConfigurationError, match=error):
        type("Bad", (Job,), options | {"perform": lambda self: None})

"""Jobs that misbehave, in real workers: each ends in failed for its own reason, and nobody else suffers."""

import itertools
import json
import signal

import psutil
import pytest

from background import Project, wait_until
from poison import ALL, DAMAGE, JOBS
from sapwood.lifecycle import DAMAGED_ITS_WORKER
from sapwood.record import JobState

pytestmark = pytest.mark.timeout(180)

MORE = (
    JOBS
    + """
import asyncio
import atexit
import io
import json
import locale

import sapwood.pool

sapwood.pool.LAST_SECONDS = 0.2


def mask():
    return sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def umask():
    seen = os.umask(0)
    os.umask(seen)
    return seen


class Look(Job, name="look"):
    # Says in a file how it finds its process.
    def perform(self, number: int) -> None:
        print("heard")
        seen = [
            os.getcwd(),
            umask(),
            sys.getrecursionlimit(),
            resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            locale.setlocale(locale.LC_ALL),
            mask(),
            sys.stdout is sys.__stdout__,
        ]
        (HERE / f"look-{number}").write_text(json.dumps(seen))
        note(number, self.context.attempt, "done")


class Shift(Job, name="shift"):
    def perform(self, number: int) -> None:
        os.chdir("/")
        os.umask(0o007)
        sys.setrecursionlimit(400)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        locale.setlocale(locale.LC_ALL, "C")
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        sys.stdout = io.StringIO()
        note(number, self.context.attempt, "done")


class Borrow(Job, name="borrow"):
    # Changes the directory for as long as it runs.
    def perform(self, number: int) -> None:
        before = os.getcwd()
        os.chdir("/")
        note(number, self.context.attempt, "begun")
        pause = threading.Event()
        while not (HERE / "returned").exists():
            pause.wait(0.01)
        os.chdir(before)
        note(number, self.context.attempt, "done")


def refuse():
    async def stay():
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass

    return asyncio.create_task(stay())


LEFT = dict(
    thread=lambda: threading.Thread(target=threading.Event().wait).start(),
    handler=lambda: atexit.register(threading.Event().wait),
    task=refuse,
    stdout=lambda: sys.stdout.close(),
    alarm=lambda: [signal.setitimer(signal.ITIMER_REAL, 0.01), time.sleep(0.1)],
    ignored=lambda: ctypes.CDLL(None).signal(signal.SIGTERM, 1),
    terminated=lambda: [os.kill(os.getpid(), number) for number in (signal.SIGTERM, signal.SIGINT)],
    descriptors=lambda: os.closerange(3, 4096),
    child=lambda: (HERE / "child").write_text(str(subprocess.Popen(["sleep", "600"]).pid)),
    deadly_child=lambda: [LEFT["child"](), os._exit(1)],
    threads=lambda: asyncio.create_task(asyncio.get_running_loop().shutdown_default_executor()),
    to_thread=lambda: asyncio.create_task(asyncio.to_thread(os.getpid)),
)


class Leave(Job, name="leave"):
    def perform(self, number: int, kind: str, stay: bool = False) -> None:
        LEFT[kind]()
        note(number, self.context.attempt, "done")
        if stay:
            threading.Event().wait()


class AsyncLeave(Job, name="async_leave"):
    kept: list = []

    async def perform(self, number: int, kind: str) -> None:
        left = LEFT[kind]()
        self.kept.append(left)
        if kind in ("threads", "to_thread"):
            await left
        note(number, self.context.attempt, "done")


class Fork(Job, name="fork"):
    def perform(self, number: int) -> None:
        child = os.fork()
        if child:
            assert os.waitpid(child, 0)[1] == 0
            note(number, self.context.attempt, "done")


class AsyncFork(Job, name="async_fork"):
    async def perform(self, number: int) -> None:
        child = os.fork()
        if child:
            await asyncio.to_thread(os.waitpid, child, 0)
            note(number, self.context.attempt, "done")
        else:
            await asyncio.sleep(0)


class AsyncEffect(Job, name="async_effect"):
    async def perform(self, number: int) -> None:
        for _ in range(20):
            await asyncio.sleep(0.001)
        note(number, self.context.attempt, "done")
"""
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A project whose only worker has three slots, for tests that leave it in good order."""
    folder = tmp_path_factory.mktemp("shared")
    project = Project(folder / "project", f"sqlite:///{folder}/jobs.db", more=MORE)
    project.start("-n", "1", "-c", "3")
    yield project
    project.end()


@pytest.fixture
def project(tmp_path, database_url):
    project = Project(tmp_path / "project", database_url("sqlite"), more=MORE)
    yield project
    project.end()


_numbers = itertools.count(1)


def _run(project: Project, job: str, count: int = 1, **arguments: object) -> list[int]:
    """Enqueue jobs with numbers of their own; return these."""
    numbers = list(itertools.islice(_numbers, count))
    project.enqueue(job, *numbers, **arguments)
    return numbers


def _tries(project: Project, numbers: list[int], what: str = "done") -> list[tuple[int, int]]:
    return sorted((number, attempt) for number, attempt, _ in project.effects(what) if number in numbers)


def _done(project: Project, numbers: list[int]) -> None:
    wait_until(lambda: {number for number, _ in _tries(project, numbers)} == {*numbers}, seconds=60, about=f"{numbers}")


def _restarts(project: Project) -> int:
    return sum(worker["restarts"] for worker in project.status()["workers"])


def _looked(project: Project, number: int) -> list[object]:
    seen: list[object] = json.loads((project.folder / f"look-{number}").read_text())
    return seen


@pytest.mark.parametrize(
    ("database", "kinds"),
    [
        ("sqlite", ALL.keys() - {"descriptors", "all_descriptors"}),
        ("postgresql", {"exit_0", "replaced", "huge", "nul", "surrogate"}),
        ("mysql", {"exit_0", "replaced", "huge", "nul", "surrogate"}),
    ],
)
def test_each_kind_of_poison_fails_for_its_own_reason_and_none_of_its_neighbours_does(
    tmp_path, database_url, database, kinds
):
    project = Project(tmp_path / "project", database_url(database), more=JOBS)
    try:
        project.start("-n", "2", "-c", "3")
        poison: dict[int, str] = {}
        # Those that kill come last: what a neighbour had not yet written would be lost with it.
        for first, kills in ((0, False), (100, True)):
            project.enqueue("effect", *range(first, first + 20))
            for kind in sorted(kind for kind in kinds if bool(ALL[kind].deaths) == kills):
                # One that spends no try dies three times; for the others once is enough here.
                tries = 24 if ALL[kind] is DAMAGE else 1
                poison |= dict.fromkeys(project.enqueue("poison", first, kind=kind, max_attempts=tries), kind)
            wait_until(lambda: set(project.states()) <= {JobState.FAILED}, seconds=120, about="the jobs to be done")
        assert {number for number, _, _ in project.effects()} == {*range(20), *range(100, 120)}
        left = {job.id: job for job in project.adapter.jobs(limit=1000)}
        assert left.keys() == poison.keys()
        for job, kind in poison.items():
            assert left[job].last_error.startswith(ALL[kind].error), kind
            assert bool(left[job].deaths) == bool(ALL[kind].deaths), kind
    finally:
        project.end()


def test_a_worker_that_a_job_has_damaged_ends_at_once_even_while_the_job_goes_on(project):
    project.start("-n", "1", "-c", "2")
    (guilty,) = project.enqueue("leave", 0, kind="descriptors", stay=True)
    wait_until(lambda: project.adapter.get(guilty).state is JobState.FAILED, seconds=60)
    record = project.adapter.get(guilty)
    assert (record.deaths, record.attempts, record.last_error) == (3, 0, DAMAGED_ITS_WORKER)


def test_a_worker_without_a_supervisor_ends_too_when_it_is_damaged(project):
    (guilty,) = project.enqueue("poison", 0, kind="descriptors")
    innocent = _run(project, "effect")
    codes = [project.call("workoff").returncode for _ in range(4)]
    assert codes[:3] == [70, 70, 70]
    assert (project.adapter.get(guilty).state, project.adapter.get(guilty).deaths) == (JobState.FAILED, 3)
    # What a worker has not yet written when it is damaged runs again; that is no try of its own.
    assert set(_tries(project, innocent)) == {(innocent[0], 1)}


# --- what is put back -----------------------------------------------------------------------------------------------


def test_each_job_finds_the_process_as_the_first_one_did(shared):
    looks = []
    for job in ("look", "shift", "look"):
        numbers = _run(shared, job)
        _done(shared, numbers)
        looks += numbers if job == "look" else []
    assert _looked(shared, looks[0]) == _looked(shared, looks[1])
    assert "a job has left the working directory changed" in shared.log()


def test_nothing_starts_on_what_a_running_job_has_changed(shared):
    borrower = _run(shared, "borrow")
    wait_until(lambda: _tries(shared, borrower, "begun"))
    look = _run(shared, "look")
    # Something that takes about as long as a claim would.
    assert shared.call("list").returncode == 0
    (shared.folder / "returned").touch()
    _done(shared, look)
    assert _looked(shared, look[0])[0] == str(shared.folder)


def test_a_timer_that_a_job_sets_ends_nobody(shared):
    _done(shared, _run(shared, "leave", kind="alarm"))
    _done(shared, _run(shared, "effect"))
    assert "SIGALRM" not in shared.log()


def test_a_handler_that_a_job_has_replaced_in_native_code_is_put_back(shared):
    _done(shared, _run(shared, "leave", kind="ignored"))
    (worker,) = shared.workers()
    before = _restarts(shared)

    def has_stopped() -> bool:
        if worker.is_running():
            worker.send_signal(signal.SIGTERM)
        return _restarts(shared) > before

    wait_until(has_stopped, pause=0.2)


def test_a_job_that_signals_its_worker_is_done_once(shared):
    numbers = _run(shared, "leave", kind="terminated")
    wait_until(lambda: shared.states() == {})
    assert _tries(shared, numbers) == [(numbers[0], 1)]


def test_after_a_job_has_closed_stdout_others_may_print_and_a_fresh_worker_follows(shared):
    before = _restarts(shared)
    numbers = [*_run(shared, "leave", kind="stdout"), *_run(shared, "look", 2)]
    _done(shared, numbers)
    assert [attempt for _, attempt in _tries(shared, numbers)] == [1, 1, 1]
    wait_until(lambda: _restarts(shared) > before)


# --- what is left behind --------------------------------------------------------------------------------------------


def test_nothing_that_jobs_leave_behind_keeps_a_worker_from_making_room(project):
    project.write(workers="[WorkerGroup(max_jobs=1, concurrency=1, count=1)]", more=MORE)
    project.start()
    for job, kind in [("leave", "thread"), ("leave", "handler"), ("async_leave", "task")]:
        before = _restarts(project)
        _run(project, job, kind=kind)
        wait_until(lambda before=before: _restarts(project) > before)
        assert project.status()["workers"][0]["last_end"] is None
    assert "died" not in project.log()


@pytest.mark.parametrize(("kind", "lives"), [("child", True), ("deadly_child", False)])
def test_a_child_that_a_job_leaves_ends_with_its_worker_only_when_that_work_is_done_again(shared, kind, lives):
    before = _restarts(shared)
    shared.enqueue("leave", 0, kind=kind, max_attempts=1)
    wait_until(lambda: set(shared.states()) <= {JobState.FAILED})
    if lives:
        _run(shared, "leave", kind="terminated")
    wait_until(lambda: _restarts(shared) > before)
    child = psutil.Process(int((shared.folder / "child").read_text())) if lives else None
    if child is not None:
        child.kill()
    else:
        wait_until(lambda: not _runs(int((shared.folder / "child").read_text())))
    shared.adapter.clear()


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(("fork", "effect"), [("fork", "effect"), ("async_fork", "async_effect")])
def test_a_process_that_a_job_forks_runs_no_other_job(shared, fork, effect):
    numbers = [*_run(shared, effect, 20), *_run(shared, fork), *_run(shared, effect, 40)]
    wait_until(lambda: shared.states() == {})
    assert _tries(shared, numbers) == [(number, 1) for number in numbers]
    assert "Exception ignored" not in shared.log()


def test_a_job_that_shuts_down_the_threads_of_the_event_loop_takes_them_from_no_other(shared):
    _done(shared, _run(shared, "async_leave", kind="threads"))
    numbers = _run(shared, "async_leave", 2, kind="to_thread")
    _done(shared, numbers)
    assert _tries(shared, numbers) == [(number, 1) for number in numbers]


def test_a_worker_that_did_its_work_is_followed_at_once_however_often_it_is_killed(project):
    project.start("-n", "1", "-c", "1")
    for died in range(1, 4):
        _done(project, _run(project, "effect"))
        (worker,) = [worker for worker in project.workers() if "all.1" in " ".join(worker.cmdline())]
        worker.kill()
        wait_until(lambda died=died: project.log().count("worker all.1 (pid") == died)
    assert project.log().count("another follows in 0 s") == 3

"""Workers in the background: real processes, stopped, killed and frozen for real."""

import os
import re
import signal
from pathlib import Path

import psutil
import pytest

from background import SCALE, Project, wait_until
from sapwood.lifecycle import KILLED_ITS_WORKER
from sapwood.record import JobState

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def project(tmp_path, database_url):
    project = Project(tmp_path / "project", database_url("sqlite"))
    yield project
    project.end()


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def on_each(request, tmp_path, database_url):
    project = Project(tmp_path / "project", database_url(request.param))
    yield project
    project.end()


def test_workers_have_names_that_the_process_list_shows(project):
    project.start("-n", "default:2,email:1")
    lines = sorted(" ".join(worker.cmdline()).strip() for worker in project.workers())
    assert lines == ["sapwood worker default.1", "sapwood worker default.2", "sapwood worker email.1"]
    assert " ".join(psutil.Process(project.supervisor()).cmdline()).strip() == "sapwood supervisor"


def test_jobs_that_come_later_are_picked_up_soon_on_each_database(on_each):
    on_each.start("-n", "2")
    for number in range(3):
        on_each.enqueue("effect", number)
        wait_until(lambda number=number: on_each.counted() == number + 1, seconds=5)
    assert on_each.stop().returncode == 0
    assert on_each.states() == {}
    assert on_each.adapter.workers() == []


def test_a_full_store_wakes_all_workers(project):
    project.start("-n", "3", "-c", "1")
    project.enqueue("gate", 1, 2, 3)
    wait_until(lambda: project.counted("begun") == 3, seconds=5)
    assert len({pid for _, _, pid in project.effects("begun")}) == 3
    project.let_gates_open()


def test_a_killed_worker_is_replaced_and_its_jobs_are_back_at_once_on_each_database(on_each):
    on_each.start("-n", "1", "-c", "2")
    (first, second, third) = on_each.enqueue("gate", 1, 2, 3)
    wait_until(lambda: on_each.counted("begun") == 2)
    (worker,) = on_each.workers()
    worker.kill()
    # Set apart: each runs alone, in a process of its own; the third, which was not started, runs among others.
    wait_until(lambda: on_each.counted("begun") >= 4, seconds=10)
    on_each.let_gates_open()
    wait_until(lambda: on_each.states() == {}, seconds=15)
    tries = sorted((number, attempt) for number, attempt, _ in on_each.effects())
    assert tries == [(1, 2), (2, 2), (3, 1)]
    assert re.search(r"worker all\.1 \(pid \d+\) died: killed by SIGKILL", on_each.log())
    del first, second, third


def test_a_job_that_kills_its_worker_three_times_fails_and_its_neighbours_do_not(project):
    project.start("-n", "2", "-c", "2")
    (deadly,) = project.enqueue("deadly", 666)
    project.enqueue("effect", *range(50))
    wait_until(lambda: project.states() == {JobState.FAILED: 1}, seconds=30)
    record = project.adapter.get(deadly)
    assert (record.deaths, record.last_error) == (3, KILLED_ITS_WORKER)
    assert sorted({number for number, _, _ in project.effects()}) == list(range(50))
    # The second and third time it was alone.
    assert len({pid for _, _, pid in project.effects("begun")}) == 3
    assert project.log().count("[apart]") >= 2


def test_what_dies_with_its_supervisor_is_rescued_by_another_on_each_database(on_each):
    on_each.start("-n", "1")
    on_each.start("-n", "1", state="other")
    on_each.enqueue("gate", *range(10))
    wait_until(lambda: on_each.counted("begun") == 10)
    workers = on_each.workers()
    os.kill(on_each.supervisor(), signal.SIGKILL)
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert alive == [], "workers end with their supervisor"
    on_each.let_gates_open()
    wait_until(lambda: on_each.states() == {}, seconds=90 * SCALE + 20)
    assert {number for number, _, _ in on_each.effects()} == set(range(10))
    assert on_each.stop(state="other").returncode == 0


# --- stopping -------------------------------------------------------------------------------------------------------


def test_stop_lets_running_jobs_finish_and_claims_nothing_more(project):
    project.start("-n", "1", "-c", "1")
    project.enqueue("polite", 1)
    wait_until(lambda: project.counted("begun") == 1)
    project.enqueue("effect", 2, 3)
    done = project.stop()
    assert (done.returncode, project.effects()) == (0, [(1, 1, project.effects("begun")[0][2])])
    assert [project.adapter.get(job).attempts for job in (2, 3)] == [0, 0]
    assert project.left_running() == []
    assert project.adapter.workers() == []


@pytest.mark.parametrize("how", ["the time is over", "at once"])
def test_what_does_not_finish_is_handed_back_with_its_try_on_each_database(on_each, how):
    on_each.start("-n", "1", "--shutdown-timeout", "0.5" if how == "the time is over" else "60")
    (job,) = on_each.enqueue("gate", 1)
    wait_until(lambda: on_each.counted("begun") == 1)
    done = on_each.stop() if how == "the time is over" else on_each.stop("--now")
    assert done.returncode == 0, done.stderr
    record = on_each.adapter.get(job)
    assert (record.state, record.attempts, record.deaths) == (JobState.READY, 0, 0)
    assert on_each.left_running() == []
    assert on_each.adapter.workers() == []


def test_a_group_can_be_stopped_by_its_name(project):
    project.start("-n", "default:2,email:1")
    assert project.stop("-n", "emial").returncode == 2
    assert project.stop("-n", "default").returncode == 0
    assert [worker["name"] for worker in project.status()["workers"]] == ["email.1"]
    project.enqueue("effect", 1, queue="email")
    wait_until(lambda: project.counted() == 1)
    assert project.stop("-n", "email:1").returncode == 0


def test_the_spec_that_runs_stops_all(project):
    project.start("-n", "default:2,email:1")
    assert project.stop("-n", "default:2,email:1").returncode == 0
    assert project.call("status").returncode == 1


def test_a_quiet_supervisor_claims_nothing_and_lives(project):
    project.start("-n", "1")
    os.kill(project.supervisor(), signal.SIGTSTP)
    wait_until(lambda: project.status()["supervisor"]["state"] == "quiet")
    project.enqueue("effect", 1)
    # Something that takes about as long as a claim would.
    assert project.call("list").returncode == 0
    assert project.status()["workers"][0]["state"] == "ready"
    assert project.counted() == 0
    assert project.stop().returncode == 0


def test_quit_writes_all_stacks_to_the_log_and_ends_nothing(project):
    project.start("-n", "1")
    project.enqueue("gate", 1)
    wait_until(lambda: project.counted("begun") == 1)
    os.kill(project.supervisor(), signal.SIGQUIT)
    wait_until(lambda: "in perform" in project.log() and "in _beat_on" in project.log())
    assert project.status()["supervisor"]["state"] == "ready"
    project.let_gates_open()
    wait_until(lambda: project.states() == {})


# --- recycling ------------------------------------------------------------------------------------------------------


def test_a_worker_makes_room_after_so_many_jobs(project):
    project.write(workers="[WorkerGroup(max_jobs=5, concurrency=1, count=1)]")
    project.start()
    project.enqueue("effect", *range(20))
    wait_until(lambda: project.counted() == 20)
    assert len({pid for _, _, pid in project.effects()}) >= 3
    assert "died" not in project.log()


def test_a_worker_makes_room_when_it_has_grown(project):
    project.write(workers="[WorkerGroup(max_memory=200_000_000, concurrency=1, count=1)]")
    project.start()
    for number in range(3):
        project.enqueue("hoard", number, size=150_000_000)
        wait_until(lambda number=number: number in {hoard for hoard, _, _ in project.effects()})
        # The look at the memory comes with a claim, at most once a second.
        wait_until(lambda number=number: _lookup(project, number), seconds=15)
    assert len({pid for number, _, pid in project.effects() if number < 3}) == 3


def _lookup(project, number):
    project.enqueue("effect", 100 + number)
    (worker,) = project.status()["workers"]
    return worker["restarts"] == number + 1 and worker["state"] == "ready"


# --- fences ---------------------------------------------------------------------------------------------------------


def test_workers_of_a_frozen_supervisor_end_by_themselves_and_it_recovers(on_each):
    on_each.start("-n", "2")
    supervisor, workers = on_each.supervisor(), on_each.workers()
    os.kill(supervisor, signal.SIGSTOP)
    wait_until(lambda: not any(_runs(worker) for worker in workers), seconds=40 * SCALE + 10)
    os.kill(supervisor, signal.SIGCONT)
    on_each.enqueue("effect", 1)
    wait_until(lambda: on_each.counted() == 1, seconds=20)
    assert on_each.supervisor() == supervisor
    assert on_each.stop().returncode == 0


def _runs(process):
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_a_frozen_worker_keeps_its_jobs_while_its_supervisor_lives(project):
    project.start("-n", "1")
    project.enqueue("gate", 1)
    wait_until(lambda: project.counted("begun") == 1)
    (worker,) = project.workers()
    worker.suspend()
    wait_until(lambda: project.status()["workers"][0]["heard_seconds"] > 60 * SCALE + 1, seconds=20)
    worker.resume()
    project.let_gates_open()
    wait_until(lambda: project.states() == {})
    assert [(number, attempt) for number, attempt, _ in project.effects()] == [(1, 1)]


# --- start ----------------------------------------------------------------------------------------------------------


def test_start_that_cannot_load_the_app_says_why_and_leaves_nothing(project):
    (project.folder / "jobs.py").write_text("import nothing_of_that_name\n")
    done = project.call("start", "-n", "1")
    assert done.returncode == 3
    assert "nothing_of_that_name" in done.stderr
    assert project.left_running() == []


def test_start_whose_workers_cannot_load_the_jobs_says_why_and_leaves_nothing(project):
    # The command can import it, a worker cannot.
    project.write(more='if "child" in " ".join(sys.orig_argv):\n    raise RuntimeError("not in a worker")\n')
    done = project.call("start", "-n", "2")
    assert done.returncode == 1
    assert "not in a worker" in done.stderr
    assert "Traceback" not in done.stderr
    assert project.left_running() == []


def test_start_without_its_database_says_so(tmp_path, database_url, project):
    project.url = "postgresql://sapwood@127.0.0.1:1/nowhere"
    project.write()
    done = project.call("start", "-n", "1", "--wait", "3")
    assert done.returncode in {1, 4}
    assert "127.0.0.1" in done.stderr
    assert project.left_running() == []


def test_a_second_start_is_refused(project):
    project.start("-n", "1")
    done = project.call("start", "-n", "1")
    assert done.returncode == 6
    assert f"pid {project.supervisor()}" in done.stderr


def test_nothing_is_inherited_from_the_terminal(project):
    with (project.folder / "held.txt").open("w") as held:
        os.set_inheritable(held.fileno(), True)
        project.start("-n", "1")
    for process in [psutil.Process(project.supervisor()), *project.workers()]:
        opened = {str(fd.readlink()) for fd in Path(f"/proc/{process.pid}/fd").iterdir()}
        assert not [name for name in opened if "held.txt" in name or "/dev/pts" in name]
    assert (project.folder / ".sapwood").stat().st_mode & 0o777 == 0o700
    assert os.getsid(project.supervisor()) == project.supervisor()


# --- restart --------------------------------------------------------------------------------------------------------


def test_restart_replaces_workers_one_by_one_and_runs_the_new_code(project):
    project.start("-n", "2")
    before = {worker.pid for worker in project.workers()}
    supervisor = project.supervisor()
    project.write(
        more='class Fresh(Job, name="fresh"):\n    def perform(self, number: int) -> None: note(number, 1, "fresh")\n'
    )
    done = project.call("restart")
    assert done.returncode == 0, done.stderr
    status = project.status()
    assert [worker["name"] for worker in status["workers"]] == ["all.1", "all.2"]
    assert before.isdisjoint(worker["pid"] for worker in status["workers"])
    assert project.supervisor() == supervisor
    project.enqueue("fresh", 7)
    wait_until(lambda: project.counted("fresh") == 1)


def test_restart_takes_a_new_spec_and_keeps_it(project):
    project.start("-n", "default:1")
    assert project.call("restart", "-n", "default:2,email:1").returncode == 0
    names = ["default.1", "default.2", "email.1"]
    assert [worker["name"] for worker in project.status()["workers"]] == names
    assert project.call("restart").returncode == 0
    assert [worker["name"] for worker in project.status()["workers"]] == names


def test_restart_with_code_that_no_worker_can_load_leaves_the_old_ones_at_work(project):
    project.start("-n", "2")
    before = {worker.pid for worker in project.workers()}
    project.write(more='if "child" in " ".join(sys.orig_argv):\n    raise RuntimeError("half a deployment")\n')
    done = project.call("restart")
    assert done.returncode == 1
    assert "half a deployment" in done.stderr
    assert {worker.pid for worker in project.workers()} == before
    project.enqueue("effect", 1)
    wait_until(lambda: project.counted() == 1)
    assert project.call("restart").returncode != 0
    project.write()
    assert project.call("restart").returncode == 0


def test_another_release_replaces_the_supervisor_too(project):
    from sapwood.daemon import StateFolder
    from sapwood.plan import Plan

    project.start("-n", "1")
    pid, folder = project.supervisor(), StateFolder(project.folder / ".sapwood")
    before = project.status()
    other = Plan(
        app="jobs:app",
        directory=str(project.folder),
        release="99.0",
        command=_command(),
        workers=[_worker_plan()],
        stores={"default": project.adapter.address()},
    )
    answer = folder.ask({"verb": "restart", "plan": other.encoded().decode(), "patience": 20}, seconds=60)
    assert answer == {"error": None, "successor": True}
    wait_until(lambda: project.status()["supervisor"].get("release") == "99.0", seconds=20)
    wait_until(lambda: project.status()["supervisor"]["state"] == "ready", seconds=20)
    after = project.status()["supervisor"]
    assert (after["pid"], after["id"] == before["supervisor"]["id"]) == (pid, False)
    project.enqueue("effect", 1)
    wait_until(lambda: project.counted() == 1)
    assert project.stop().returncode == 0


def _command():
    from sapwood.cli.planning import WORKER

    return WORKER


def _worker_plan():
    from sapwood.plan import WorkerPlan

    return WorkerPlan(name="all.1", group="all", adapter="default")

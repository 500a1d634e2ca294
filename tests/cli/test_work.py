import json
import os
import re
import signal
import subprocess
import sys

import pytest


def start(project, *words, **environ):
    return subprocess.Popen(
        [sys.executable, "-m", "sapwood", *words],
        cwd=project,
        env=os.environ | {"NO_COLOR": "1", "PYTHONUNBUFFERED": "1"} | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_workoff_runs_what_is_ready_and_tells_what_is_left(sapwood, project):
    sapwood("enqueue", "WelcomeEmail", "user_id=1")
    sapwood("enqueue", "WelcomeEmail", "user_id=2")
    sapwood("enqueue", "WelcomeEmail", "user_id=3", "--in", "2h")
    result = sapwood("workoff")
    assert result.code == 0
    lines = result.out.splitlines()
    assert sorted(lines[:2]) == ["welcome 1 en", "welcome 2 en"]
    assert lines[2] == "✓ 2 done"
    assert re.fullmatch(r"  1 scheduled job is not due \(next in 2h\)", lines[3])


def test_workoff_with_nothing_to_do_says_so(sapwood, project):
    assert sapwood("workoff") == (0, "✓ nothing was ready to run\n", "")


def test_workoff_fails_on_error_only_on_demand(sapwood, project):
    sapwood("enqueue", "Fails")
    result = sapwood("workoff")
    assert result.code == 0
    assert result.out.startswith("✕ 1 to be tried again\n")
    sapwood("enqueue", "Fails")
    assert sapwood("workoff", "--fail-on-error").code == 1


def test_workoff_gives_one_json_document_whatever_jobs_print(project, sapwood):
    sapwood("enqueue", "WelcomeEmail", "user_id=1")
    sapwood("enqueue", "Fails")
    out, err = start(project, "workoff", "--json").communicate(timeout=60)
    document = json.loads(out)
    assert (document["succeeded"], document["retried"], document["left"]) == (1, 1, {"default": {"scheduled": 1}})
    assert "welcome 1 en" in err


def test_workoff_serves_the_queues_that_were_named(sapwood, project):
    sapwood("enqueue", "WelcomeEmail", "user_id=1")
    sapwood("enqueue", "WelcomeEmail", "user_id=2", "--queue", "other")
    result = sapwood("workoff", "--queue", "other,email")
    assert "welcome 2 en" in result.out
    assert "welcome 1 en" not in result.out
    assert "1 job left ready" in result.out


def test_workoff_runs_in_several_processes(project, sapwood):
    for number in range(6):
        sapwood("enqueue", "WelcomeEmail", f"user_id={number}")
    result = sapwood("workoff", "-n", "2", "-c", "1")
    assert (result.code, result.out) == (0, "✓ 6 done\n")


def test_an_undeclared_queue_is_refused_with_the_one_that_was_meant(sapwood, project):
    app = project / "jobs" / "__init__.py"
    app.write_text(app.read_text().replace("imports=", 'queues=["default", "email"], imports='))
    for command in ("work", "workoff"):
        result = sapwood(command, "--queue", "emial")
        assert result.code == 2
        assert "did you mean 'email'?" in result.err


def test_work_runs_until_it_is_told_to_stop(sapwood, project):
    sapwood("enqueue", "WelcomeEmail", "user_id=7")
    worker = start(project, "work", "-c", "3")
    assert worker.stdout.readline() == "welcome 7 en\n"
    assert sapwood("enqueue", "WelcomeEmail", "user_id=8").err == ""
    assert worker.stdout.readline() == "welcome 8 en\n"
    worker.send_signal(signal.SIGINT)
    _, err = worker.communicate(timeout=60)
    assert worker.returncode == 0
    assert re.search(r"◆ sapwood \S+ · jobs:app · sqlite:///", err)
    assert "all · 3 at once" in err
    assert "Fails, Flags, WelcomeEmail" in err
    assert "1 ready" in err
    assert "✓ stopped: 2 done" in err


def test_work_refuses_a_concurrency_of_none(sapwood, project):
    assert sapwood("work", "-c", "0").code == 2


def test_work_takes_its_settings_from_the_environment(sapwood, project):
    worker = start(project, "work", SAPWOOD_CONCURRENCY="9", SAPWOOD_QUEUES="email,default")
    worker.stderr.readline()
    assert "email, default · 9 at once" in worker.stderr.readline()
    while "started" not in worker.stderr.readline():
        pass
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=60)
    assert worker.returncode == 0


def test_a_setting_of_the_wrong_kind_ends_with_3(sapwood, project, monkeypatch):
    monkeypatch.setenv("SAPWOOD_CONCURRENCY", "many")
    result = sapwood("workoff")
    assert result.code == 3
    assert "SAPWOOD_CONCURRENCY" in result.err


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="there are no terminals here")
def test_work_on_a_terminal_shows_what_happens_and_why_nothing_does(sapwood, project):
    sapwood("enqueue", "WelcomeEmail", "user_id=7")
    sapwood("enqueue", "Fails", "--priority", "99")
    sapwood("enqueue", "Flags", "on=1", "ratio=1", "name=x", "ids=[]", "--in", "2h")
    ours, theirs = os.openpty()
    environ = {name: value for name, value in os.environ.items() if name != "CI"}
    worker = subprocess.Popen(
        [sys.executable, "-m", "sapwood", "work"], cwd=project, env=environ | {"NO_COLOR": "1"}, stderr=theirs
    )
    os.close(theirs)
    seen = b""
    while "idle – ".encode() not in seen:
        seen += os.read(ours, 4096)
    worker.send_signal(signal.SIGINT)
    assert worker.wait(60) == 0
    text = seen.decode()
    assert re.search(r"\d\d:\d\d:\d\d ▶ WelcomeEmail #1", text)
    assert re.search(r"✓ WelcomeEmail #1  \d+ms", text)
    assert re.search(r"✕ Fails #2  \d+ms  try 1/2 → again in 1h", text)
    assert r"ValueError: no such\x1b[31m address" in text
    assert "idle – the next job is due in 1h" in text
    os.close(ours)


TWO_ADAPTERS = """
from sapwood import Job, Sapwood, WorkerGroup

app = Sapwood(
    adapters={"default": "sqlite:///jobs.db", "audit": "sqlite:///audit.db"},
    workers=[WorkerGroup(queues=["default"], concurrency=2), WorkerGroup(queues=["email"], concurrency=3)],
)


class Main(Job):
    def perform(self) -> None:
        print("main")


class Audit(Job, adapter="audit"):
    def perform(self) -> None:
        print("audit")


class Other(Job, queue="other"):
    def perform(self) -> None:
        print("other")
"""


def test_workoff_serves_every_adapter_or_the_one_that_was_named(sapwood, folder):
    (folder / "jobs.py").write_text(TWO_ADAPTERS)
    sapwood("enqueue", "Main")
    sapwood("enqueue", "Audit")
    assert "Audit" in sapwood("list", "--adapter", "audit").out
    assert sapwood("workoff", "--adapter", "audit").out == "audit\n✓ 1 done\n"
    sapwood("enqueue", "Audit")
    assert sapwood("workoff").out == "main\naudit\n✓ 2 done\n"


def test_the_apps_worker_groups_say_what_is_served(sapwood, folder):
    (folder / "jobs.py").write_text(TWO_ADAPTERS)
    sapwood("enqueue", "Other")
    assert "1 job left ready" in sapwood("workoff").out
    worker = start(folder, "work")
    seen = [worker.stderr.readline() for _ in range(5)]
    while "started" not in worker.stderr.readline():
        pass
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=60)
    assert seen[1] == "  workers  default ×1, email ×1 · 5 at once\n"
    assert 'adapter "audit" is not served here: sapwood work --adapter audit' in seen[4]


@pytest.mark.parametrize("store", ["MemoryAdapter()", "'sqlite:///:memory:'", "SQLAlchemyAdapter('sqlite://')"])
def test_jobs_in_memory_are_not_shared_between_processes(store, sapwood, folder):
    (folder / "jobs.py").write_text(
        "from sapwood import Job, MemoryAdapter, Sapwood, SQLAlchemyAdapter\n"
        f"app = Sapwood({store})\n"
        "class A(Job):\n    def perform(self) -> None: ...\n"
    )
    assert sapwood("workoff", "-n", "2").code == 6
    told = sapwood("enqueue", "A")
    assert "is gone when this command ends" in told.err
    assert "start one" not in told.err


def test_a_worker_that_breaks_is_not_passed_over(sapwood, project):
    (project / "jobs" / "rude.py").write_text(
        "import os, sapwood\nclass Rude(sapwood.Job):\n    def perform(self) -> None:\n        os._exit(9)\n"
    )
    sapwood("enqueue", "Rude")
    result = sapwood("workoff", "-n", "2")
    assert result.code == 1
    assert "of 2 did not end well" in result.err


def test_quiet_leaves_out_the_talk(sapwood, project):
    sapwood("enqueue", "WelcomeEmail", "user_id=1", "-q")
    assert sapwood("workoff", "-q") == (0, "welcome 1 en\n✓ 1 done\n", "")


def test_without_a_terminal_it_writes_log_lines(sapwood, project):
    sapwood("enqueue", "WelcomeEmail", "user_id=1")
    _, err = start(project, "workoff").communicate(timeout=60)
    assert re.search(r"(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO    WelcomeEmail #1 done", err)


def test_workoff_in_several_processes_passes_signals_on(sapwood, project):
    (project / "jobs" / "slow.py").write_text(
        "import sapwood, time\n"
        "class Slow(sapwood.Job):\n"
        "    def perform(self) -> None:\n"
        "        print('begun', flush=True)\n"
        "        while not self.context.stopping: time.sleep(0.01)\n"
    )
    sapwood("enqueue", "Slow")
    workers = start(project, "workoff", "-n", "2")
    while "begun" not in workers.stderr.readline():
        pass
    workers.send_signal(signal.SIGTERM)
    out, _ = workers.communicate(timeout=60)
    assert (workers.returncode, out) == (0, "✓ 1 done\n")


# --- several workers --------------------------------------------------------------------------------------------------


def lines_until(stream, *words):
    """Read lines until each of these words was seen; return what was read."""
    seen = ""
    while not all(word in seen for word in words):
        line = stream.readline()
        assert line, f"it ended: {seen}"
        seen += line
    return seen


def test_work_in_several_processes_stops_as_one_does(sapwood, project):
    workers = start(project, "work", "-n", "default:1,email:1")
    lines_until(workers.stderr, "[default.1] worker", "[email.1] worker")
    sapwood("enqueue", "WelcomeEmail", "user_id=1", "--queue", "default")
    assert workers.stdout.readline() == "welcome 1 en\n"
    workers.send_signal(signal.SIGINT)
    _, err = workers.communicate(timeout=60)
    assert workers.returncode == 0
    assert "[default.1] worker" in err
    assert "✓ stopped: 1 done, 0 failed" in err


def test_a_specification_that_cannot_be_read_points_at_its_column(sapwood, project):
    for command in ("work", "start"):
        result = sapwood(command, "-n", "default:2,email:x")
        assert result.code == 2
        assert '"x" is not a number (column 17)' in result.err
        assert "                ^" in result.err
        assert "Traceback" not in result.err


def test_a_specification_names_declared_queues_only(sapwood, project):
    app = project / "jobs" / "__init__.py"
    app.write_text(app.read_text().replace("imports=", 'queues=["default", "email"], imports='))
    for command in ("work", "start"):
        result = sapwood(command, "-n", "emial:2")
        assert result.code == 2
        assert 'did you mean "email"?' in result.err


def test_jobs_in_memory_have_no_workers_in_other_processes(sapwood, folder):
    (folder / "jobs.py").write_text(
        "from sapwood import Job, MemoryAdapter, Sapwood\n"
        "app = Sapwood(MemoryAdapter())\n"
        "class A(Job):\n    def perform(self) -> None: ...\n"
    )
    for command in ("work", "start"):
        assert sapwood(command, "-n", "1").code == 6


def test_reload_runs_the_code_as_it_is_now_and_keeps_the_old_where_that_is_broken(sapwood, project):
    job = project / "jobs" / "spoken.py"
    code = (
        "import sapwood\nclass Spoken(sapwood.Job):\n    def perform(self) -> None:\n        print('{}', flush=True)\n"
    )
    job.write_text(code.format("before"))
    workers = start(project, "work", "--reload")
    lines_until(workers.stderr, "[all.1] worker")
    sapwood("enqueue", "Spoken")
    assert workers.stdout.readline() == "before\n"
    job.write_text(code.format("after"))
    lines_until(workers.stderr, "spoken.py changed", "started", "stopped")
    sapwood("enqueue", "Spoken")
    assert workers.stdout.readline() == "after\n"
    job.write_text("this is no Python\n")
    lines_until(workers.stderr, "not restarted: ")
    job.write_text(code.format("mended"))
    lines_until(workers.stderr, "spoken.py changed", "stopped")
    sapwood("enqueue", "Spoken")
    assert workers.stdout.readline() == "mended\n"
    workers.send_signal(signal.SIGTERM)
    workers.communicate(timeout=60)
    assert workers.returncode == 0


OWN_ADAPTER = """
from sapwood import Job, SQLAlchemyAdapter, Sapwood

class Own(SQLAlchemyAdapter):
    def address(self):
        return None

app = Sapwood(Own("sqlite:///jobs.db"))

class Say(Job):
    def perform(self, word: str) -> None:
        print(word, flush=True)
"""


def test_workers_of_a_store_that_only_the_app_can_open_look_after_themselves(sapwood, folder):
    (folder / "jobs.py").write_text(OWN_ADAPTER)
    workers = start(folder, "work", "-n", "2")
    lines_until(workers.stderr, "[all.1] worker", "[all.2] worker")
    sapwood("enqueue", "Say", "word=hello")
    assert workers.stdout.readline() == "hello\n"
    workers.send_signal(signal.SIGTERM)
    workers.communicate(timeout=60)
    assert workers.returncode == 0


def test_status_and_stop_say_where_nothing_runs(sapwood, project):
    result = sapwood("status")
    assert (result.code, result.out) == (1, "no workers are running in the background: sapwood start\n")
    assert json.loads(sapwood("status", "--json").out) == {"supervisor": None, "stores": {}, "workers": []}
    result = sapwood("stop")
    assert result.code == 1
    assert "no supervisor runs" in result.err
    assert sapwood("restart").code == 1

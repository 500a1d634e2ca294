"""Workers under service managers, for real: a job is worked off, a stop is graceful, and nothing is left running."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

BIN = Path(sys.executable).parent

JOBS = """
import os
import sys
import time
from pathlib import Path

from sapwood import Job

FOLDER = Path(__file__).parent.parent

# A worker process loads the application only when it is let in.
if (FOLDER / "gate").exists() and "sapwood.cli.child" in sys.orig_argv:
    (FOLDER / "gate").read_text()


def tell(word):
    with (FOLDER / "told").open("w") as told:
        told.write(word + "\\\\n")


class Quick(Job):
    def perform(self, word: str) -> None:
        tell(word)


class Patient(Job):
    def perform(self) -> None:
        tell("begun")
        while not self.context.stopping:
            time.sleep(0.01)
        tell("stopping")
        tell("finished")


class Environment(Job):
    def perform(self) -> None:
        names = [name for name in os.environ if name.startswith(("NOTIFY_", "WATCHDOG_"))]
        tell("environment " + " ".join(names))


class Held(Job):
    def perform(self) -> None:
        tell("begun")
        (FOLDER / "hold").read_text()
        tell("finished")
""".replace("\\\\n", "\\n")


@pytest.fixture
def told(project):
    """What the jobs of the project tell, line by line."""
    (project / "jobs" / "managed.py").write_text(JOBS)
    os.mkfifo(project / "told")
    with os.fdopen(os.open(project / "told", os.O_RDWR), "r+b", buffering=0) as file:
        yield lambda: file.readline().decode().strip()


class Manager:
    """A process that is to start workers, and all that it has started."""

    def __init__(self, folder, words, environ):
        environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"} | environ
        with (folder / "manager.log").open("wb") as log:
            self.process = subprocess.Popen(
                [str(word) for word in words], cwd=folder, env=environment, stdout=log, stderr=log
            )
        self.started = set()

    def look(self):
        """Note what it has started by now."""
        if self.process.poll() is None:
            self.started.update(psutil.Process(self.process.pid).children(recursive=True))

    def stop(self):
        """Note what it has started, and tell it to stop."""
        self.look()
        self.process.send_signal(signal.SIGTERM)


@contextmanager
def running(folder, *words, **environ):
    """Run a manager; it and all that it has started must have ended by the end, or are ended."""
    manager = Manager(folder, words, environ)
    try:
        yield manager
        manager.process.wait(30)
        assert manager.started
        assert [process for process in manager.started if process.is_running()] == []
    finally:
        manager.look()
        for process in [manager.process, *manager.started]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        manager.process.wait()


def works_and_stops(folder, sapwood, told, *words):
    """Have a manager start the workers, work off a job, and stop while another one runs."""
    with running(folder, *words) as manager:
        sapwood("enqueue", "Quick", "word=hello")
        assert told() == "hello"
        sapwood("enqueue", "Patient")
        assert told() == "begun"
        manager.stop()
        assert told() == "stopping"
        assert told() == "finished"
    assert json.loads(sapwood("list", "--json").out)["items"] == []


def test_supervisord_runs_the_workers(sapwood, project, told):
    assert sapwood("generate", "service", "supervisor", "-n", "2").code == 0
    (project / "supervisord.conf").write_text(
        "[supervisord]\nnodaemon=true\nlogfile=%(here)s/supervisord.log\npidfile=%(here)s/supervisord.pid\n"
        "childlogdir=%(here)s\n[include]\nfiles=%(here)s/deploy/*.conf\n"
    )
    works_and_stops(project, sapwood, told, BIN / "supervisord", "-c", "supervisord.conf")


def test_a_procfile_runs_the_workers(sapwood, project, told):
    assert sapwood("generate", "service", "procfile", "-n", "2").code == 0
    works_and_stops(project, sapwood, told, BIN / "honcho", "start")


# --- systemd, as far as a process can tell, and probes --------------------------------------------------------------


class Listener:
    """The socket of systemd, of which a service knows the name."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(30)
        self.heard = []

    def hear(self, word):
        """Wait until that is said."""
        while not self.heard or self.heard[-1] != word:
            self.heard.append(self.socket.recv(100).decode())


@pytest.fixture
def listener(tmp_path):
    listener = Listener(tmp_path / "notify")
    yield listener
    listener.socket.close()


@pytest.mark.parametrize("spec", [(), ("-n", "2")], ids=["one worker", "two workers"])
def test_systemd_hears_that_it_is_ready_lives_and_stops_and_jobs_do_not_know_of_it(
    sapwood, project, told, listener, spec
):
    environ = {"NOTIFY_SOCKET": str(project / "notify"), "WATCHDOG_USEC": "100000"}
    with running(project, sys.executable, "-m", "sapwood", "work", *spec, **environ) as manager:
        listener.hear("READY=1")
        listener.hear("WATCHDOG=1")
        sapwood("enqueue", "Environment")
        assert told() == "environment"
        manager.stop()
        listener.hear("STOPPING=1")
        assert manager.process.wait(30) == 0
    assert listener.heard.count("READY=1") == 1


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    status = connection.getresponse().status
    connection.close()
    return status


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_the_probe_says_when_workers_are_ready_and_when_no_more(sapwood, project, told, listener):
    for name in ("gate", "hold"):
        os.mkfifo(project / name)
    port = free_port()
    # Signs of life show that it turns, long before its workers are ready.
    environ = {"NOTIFY_SOCKET": str(project / "notify"), "WATCHDOG_USEC": "100000"}
    words = (sys.executable, "-m", "sapwood", "work", "--probe-port", port)
    with running(project, *words, **environ) as manager:
        listener.hear("WATCHDOG=1")
        assert (get(port, "/live"), get(port, "/ready")) == (200, 503)
        (project / "gate").write_text("open")
        listener.hear("READY=1")
        assert (get(port, "/live"), get(port, "/ready")) == (200, 200)
        (project / "gate").unlink()
        sapwood("enqueue", "Held")
        assert told() == "begun"
        manager.stop()
        listener.hear("STOPPING=1")
        assert (get(port, "/live"), get(port, "/ready")) == (200, 503)
        (project / "hold").write_text("go on")
        assert told() == "finished"
        assert manager.process.wait(30) == 0
    assert json.loads(sapwood("list", "--json").out)["items"] == []

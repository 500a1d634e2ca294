"""A project whose workers run in the background, as an operator has them, and the means to disturb them."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
from sapwood.daemon import NoAnswer, StateFolder
from sapwood.record import JobDraft, JobState

SCALE = 1 / 20
"""The times of the tests, as a part of the real ones."""

APP = """
import os
import random
import signal
import sqlite3
import sys
import threading
import time
from pathlib import Path

from sapwood import Job, Sapwood, WorkerGroup
from sapwood.timing import Timing

HERE = Path(__file__).parent
app = Sapwood({url!r}, timing=Timing().scaled({scale!r}), workers={workers})

_local = threading.local()


def note(number, attempt, what):
    if not hasattr(_local, "connection"):
        _local.connection = sqlite3.connect(HERE / "effects.db", timeout=60, isolation_level=None)
    row = (number, attempt, what, os.getpid(), time.monotonic())
    _local.connection.execute("INSERT INTO effects VALUES (?, ?, ?, ?, ?)", row)


class Effect(Job, name="effect"):
    def perform(self, number: int, seconds: float = 0) -> None:
        if seconds:
            time.sleep(seconds)
        note(number, self.context.attempt, "done")


class Gate(Job, name="gate"):
    # Waits until the file "open" is there.
    def perform(self, number: int) -> None:
        note(number, self.context.attempt, "begun")
        pause = threading.Event()
        while not (HERE / "open").exists():
            pause.wait(0.01)
        note(number, self.context.attempt, "done")


class Polite(Job, name="polite"):
    # Ends when it is asked to.
    def perform(self, number: int) -> None:
        note(number, self.context.attempt, "begun")
        pause = threading.Event()
        while not self.context.stopping:
            pause.wait(0.01)
        note(number, self.context.attempt, "done")


class Deadly(Job, name="deadly"):
    def perform(self, number: int) -> None:
        note(number, self.context.attempt, "begun")
        os.kill(os.getpid(), signal.SIGKILL)


class Hoard(Job, name="hoard"):
    kept: list = []

    def perform(self, number: int, size: int) -> None:
        self.kept.append(bytearray(b"x") * size)
        note(number, self.context.attempt, "done")

{more}
"""


class Project:
    """A folder with an app, its store, and the effects of its jobs in a database of their own."""

    def __init__(
        self, folder: Path, url: str, *, scale: float = SCALE, workers: str = "()", more: str = "", name: str = "main"
    ) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True, parents=True)
        self.name = name
        self.url = url
        self.scale = scale
        self.write(workers=workers, more=more)
        self.adapter = SQLAlchemyAdapter(url)
        self.adapter.migrate()
        self._effects = sqlite3.connect(folder / "effects.db", timeout=60, isolation_level=None)
        self._effects.execute("PRAGMA journal_mode = WAL")
        self._effects.execute("PRAGMA synchronous = OFF")
        self._effects.execute(
            "CREATE TABLE IF NOT EXISTS effects (number INTEGER, attempt INTEGER, what TEXT, pid INTEGER, at REAL)"
        )
        self._others: list[str] = []
        self._pids: set[int] = set()
        self.prefix: Sequence[str] = ()
        """What a command begins with, as for another host."""

    def write(self, *, workers: str = "()", more: str = "") -> None:
        """Write the code of the app."""
        code = APP.format(url=self.url, scale=self.scale, workers=workers, more=more)
        (self.folder / "jobs.py").write_text(code)

    # --- the command line -------------------------------------------------------------------------------------------

    def call(self, *words: str, seconds: float = 60, **environ: str) -> subprocess.CompletedProcess[str]:
        """Call a command."""
        return subprocess.run(
            [*self.prefix, sys.executable, "-m", "sapwood", *words],
            cwd=self.folder,
            env=os.environ | {"NO_COLOR": "1", "SAPWOOD_APP": "jobs:app"} | environ,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def start(self, *words: str, state: str = ".sapwood", **environ: str) -> None:
        """Start a supervisor in the background, with its workers ready."""
        done = self.call("start", "--state-dir", state, *words, **environ)
        assert done.returncode == 0, done.stderr + done.stdout + self.log(state)
        if state not in self._others:
            self._others.append(state)
        status = self.status(state)
        self._pids |= {status["supervisor"]["pid"], *(worker["pid"] for worker in status["workers"] if worker["pid"])}

    def status(self, state: str = ".sapwood") -> dict[str, Any]:
        """Return how it stands, by the door that the command uses too."""
        try:
            return StateFolder(self.folder / state).ask({"verb": "status"}, seconds=10)
        except NoAnswer:
            return {"supervisor": {"state": "silent"}, "workers": []}

    def stop(self, *words: str, state: str = ".sapwood") -> subprocess.CompletedProcess[str]:
        """Stop it."""
        return self.call("stop", "--state-dir", state, *words)

    def log(self, state: str = ".sapwood") -> str:
        """Return what it has logged."""
        file = self.folder / state / "worker.log"
        return file.read_text() if file.exists() else ""

    def supervisor(self, state: str = ".sapwood") -> int:
        """Return its pid."""
        return int(json.loads((self.folder / state / "supervisor.lock").read_text())["pid"])

    def workers(self, state: str = ".sapwood") -> Sequence[psutil.Process]:
        """Return the processes of its workers, by the table of processes."""
        try:
            children = psutil.Process(self.supervisor(state)).children()
        except (psutil.Error, OSError, ValueError):
            return []
        self._pids |= {child.pid for child in children}
        return children

    def sabotage(self, code: str) -> dict[str, str]:
        """Return the environment in which every Python begins by running ``code``: for builds broken on purpose."""
        folder = self.folder / "sabotage"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(code)
        return {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))}

    # --- jobs -------------------------------------------------------------------------------------------------------

    def enqueue(
        self, job: str, *numbers: int, max_attempts: int = 24, queue: str = "default", **more: Any
    ) -> list[int]:
        """Enqueue one job for each number."""
        drafts = [
            JobDraft(job=job, args=json.dumps({"number": number} | more), max_attempts=max_attempts, queue=queue)
            for number in numbers
        ]
        return list(self.adapter.enqueue(drafts))

    def effects(self, what: str = "done") -> list[tuple[int, int, int]]:
        """Return the effects so far: number, attempt, pid."""
        rows = self._effects.execute("SELECT number, attempt, pid FROM effects WHERE what = ? ORDER BY at", (what,))
        return list(rows)

    def counted(self, what: str = "done") -> int:
        """Return how many effects there are."""
        found: int = self._effects.execute("SELECT count(*) FROM effects WHERE what = ?", (what,)).fetchone()[0]
        return found

    def states(self) -> Mapping[JobState, int]:
        """Return how many jobs are left, by state."""
        states: dict[JobState, int] = {}
        for (_, state), count in self.adapter.counts().items():
            states[state] = states.get(state, 0) + count
        return states

    def let_gates_open(self) -> None:
        """Let every gate end."""
        (self.folder / "open").touch()

    # --- the end ----------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """See that nothing is left running."""
        for state in self._others:
            with suppress(OSError, ValueError, psutil.Error):
                supervisor = psutil.Process(self.supervisor(state))
                if "sapwood" in " ".join(supervisor.cmdline()):
                    family = [supervisor, *supervisor.children(recursive=True)]
                    for process in family:
                        with suppress(psutil.Error):
                            process.send_signal(signal.SIGCONT)
                            process.kill()
                    psutil.wait_procs(family, timeout=10)
        self._effects.close()
        self.adapter.close()

    def left_running(self) -> list[psutil.Process]:
        """Return the processes of this project that still live."""
        return [process for process in processes() if str(self.folder) in _directory(process)]


def processes() -> list[psutil.Process]:
    """Return the supervisors and workers on this machine."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            line = " ".join(process.cmdline())
            if process.status() != psutil.STATUS_ZOMBIE and ("sapwood supervisor" in line or "sapwood worker" in line):
                found.append(process)
    return found


def _directory(process: psutil.Process) -> str:
    try:
        return str(process.cwd())
    except psutil.Error:
        return ""


def wait_until(holds: Callable[[], Any], *, seconds: float = 30, pause: float = 0.02, about: str = "") -> float:
    """Wait until something in other processes holds; return how long it took."""
    began = time.monotonic()
    waiting = threading.Event()
    while not holds():
        assert time.monotonic() - began < seconds, f"waited too long: {about or holds}"
        waiting.wait(pause)
    return time.monotonic() - began

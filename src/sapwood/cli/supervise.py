"""A supervisor process: ``python -m sapwood.cli.supervise``. The commands ``work``, ``start`` and ``restart`` start it.

It gets its plan by a descriptor, since a plan may hold passwords. It imports nothing of the application.
"""

import logging
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import click
import msgspec
import setproctitle

from sapwood.adapters.base import BaseAdapter
from sapwood.cli.live import logging_to_stderr
from sapwood.cli.output import complain, number, tell
from sapwood.cli.planning import SUPERVISOR
from sapwood.cli.problems import exit_code
from sapwood.cli.running import log_line
from sapwood.daemon import Identity, StateFolder
from sapwood.errors import SapwoodError
from sapwood.events import Events
from sapwood.health import Probe, ServiceManager
from sapwood.host import keep_files_private, usual_umask
from sapwood.log import LogListener
from sapwood.plan import Plan
from sapwood.supervisor import Supervisor
from sapwood.wording import escaped, told

_log = logging.getLogger("sapwood")

_ANSWER_SECONDS = 5.0


def arguments(plan: Plan, *, state: Path | None = None, ready: int | None = None, held: int | None = None) -> list[str]:
    """Return the command line of a supervisor for ``plan``, which an open file holds that it will inherit."""
    paper = tempfile.TemporaryFile()  # noqa: SIM115 - whoever inherits it closes it
    paper.write(plan.encoded())
    paper.flush()
    descriptor = os.dup(paper.fileno())
    paper.close()
    os.set_inheritable(descriptor, True)
    words = ["--plan", str(descriptor)]
    for name, value in (("--state", state), ("--ready", ready), ("--held", held)):
        if value is not None:
            words += [name, str(value)]
    return [*SUPERVISOR, *words]


def become(plan: Plan, **options: Any) -> None:
    """Turn this process into a supervisor: nothing of what it has loaded, opened or started remains."""
    words = arguments(plan, **options)
    sys.stdout.flush()
    sys.stderr.flush()
    if usual_umask() >= 0:
        os.umask(usual_umask())
    os.execv(words[0], words)  # noqa: S606 - our own command


@click.command(add_help_option=False)
@click.option("--plan", "paper", type=int, required=True)
@click.option("--state", type=click.Path(path_type=Path))
@click.option("--ready", type=int)
@click.option("--held", type=int)
def main(paper: int, state: Path | None, ready: int | None, held: int | None) -> None:
    """Be a supervisor until it is told to stop."""
    os.set_inheritable(paper, False)
    with os.fdopen(paper, "rb") as file:
        file.seek(0)
        plan = Plan.decoded(file.read())
    setproctitle.setproctitle("sapwood supervisor")
    process = _Process(plan, state, ready)
    with logging_to_stderr(_log, log_line("supervisor")):
        try:
            process.run(held)
        except SapwoodError as error:
            complain(error)
            process.tell({"error": str(error)})
            sys.exit(exit_code(error))


class _Process:
    """This process, around its supervisor."""

    def __init__(self, plan: Plan, state: Path | None, ready: int | None) -> None:
        self._plan = plan
        self._folder = None if state is None else StateFolder(state)
        self._ready = ready
        if ready is not None:
            os.set_inheritable(ready, False)

    def run(self, held: int | None) -> None:
        """Supervise to the end; where another release is to follow, become that."""
        if self._folder is not None:
            keep_files_private()
            self._folder.hold(Identity.own(self._plan.release), inherited=held)
        with self._watched() as changed:
            supervisor = self._supervisor(changed)
            supervisor.run()
        if self._folder is None and not self._plan.quiet:
            good = supervisor.done - supervisor.failed
            tell(f"{click.style('✓', fg='green')} stopped: {number(good)} done, {number(supervisor.failed)} failed")
        successor = supervisor.successor
        if successor is not None:
            _log.warning("another release takes over: %s", successor.release)
            kept = None if self._folder is None else self._folder.hand_over()
            become(successor, state=self._folder and self._folder.path, held=kept)
        if self._folder is not None:
            self._folder.let_go()

    def _supervisor(self, changed: Callable[[Supervisor], None]) -> Supervisor:
        events = Events()
        events.listen(LogListener(lambda _: _log))
        if self._plan.quiet:
            _log.setLevel(logging.ERROR)
        stores = {name: _opened(address) for name, address in self._plan.stores.items()}
        supervisor = Supervisor(self._plan, stores, events=events, changed=changed)
        if self._folder is not None:
            self._folder.listen(partial(_answer, supervisor))
        if self._plan.reload:
            _reload(supervisor, self._plan.reload)
        return supervisor

    @contextmanager
    def _watched(self) -> Iterator[Callable[[Supervisor], None]]:
        """Give what is called after each turn: it tells whoever watches how it stands."""
        manager = ServiceManager()
        probe = Probe(*self._plan.probe) if self._plan.probe is not None else None

        def changed(supervisor: Supervisor) -> None:
            if probe is not None:
                probe.told(supervisor)
            manager.told(supervisor)
            self._tell_once(supervisor)

        try:
            yield changed
        finally:
            if probe is not None:
                probe.close()

    def tell(self, document: dict[str, Any]) -> None:
        """Tell whoever started this process, once."""
        if self._ready is not None:
            with suppress(OSError):
                os.write(self._ready, msgspec.json.encode(document) + b"\n")
                os.close(self._ready)
            self._ready = None

    def _tell_once(self, supervisor: Supervisor) -> None:
        if self._ready is not None:
            hopeless = [slot for slot in supervisor.slots if slot.is_hopeless]
            if supervisor.is_ready:
                self.tell(supervisor.status())
            elif hopeless:
                self.tell({"error": "; ".join(supervisor.obstacles)})


def _opened(address: Any) -> BaseAdapter | None:
    if address is None:
        return None
    from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter  # noqa: PLC0415 - `sapwood --help` must not load it

    return SQLAlchemyAdapter(**address)


def _answer(supervisor: Supervisor, request: dict[str, Any]) -> dict[str, Any]:
    """Answer a request, in a thread of its own: what is asked for is done by the main thread."""
    answered = threading.Event()
    answer: dict[str, Any] = {}

    def done(failure: str | None) -> None:
        answer.update({"error": failure, "successor": supervisor.successor is not None})
        answered.set()

    def act() -> None:
        match request:
            case {"verb": "status"}:
                answer.update(supervisor.status())
                answered.set()
            case {"verb": "restart", "plan": str(), "patience": int() | float() as patience} if plan is not None:
                supervisor.restart(plan, done, patience=patience)
            case {"verb": "stop", "groups": list(groups)}:
                supervisor.stop_groups(groups, done)
            case {"verb": "options"}:
                running = supervisor.plan
                names = ("spec", "options", "groups", "app")
                answer.update({name: getattr(running, name) for name in names})
                answered.set()
            case _:
                done("no such request")

    # Read here, and not by the main thread: that must go on whatever a request holds.
    plan = _planned(request.get("plan"))
    supervisor.post(act)
    patient = request.get("verb") in ("restart", "stop")
    answered.wait(None if patient else _ANSWER_SECONDS)
    return answer if answered.is_set() else {"error": "the supervisor is busy"}


def _planned(text: object) -> Plan | None:
    try:
        return Plan.decoded(text.encode()) if isinstance(text, str) else None
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _reload(supervisor: Supervisor, folders: Any) -> None:
    """Replace all workers whenever a file of Python below these folders changes."""
    from watchfiles import PythonFilter, watch  # noqa: PLC0415 - an extra, for development

    def look() -> None:
        for changes in watch(*folders, watch_filter=PythonFilter()):
            names = sorted({Path(file).name for _, file in changes})
            _log.warning("%s changed: restarting the workers", escaped(", ".join(names)))
            over = threading.Event()

            def done(failure: str | None, over: threading.Event = over) -> None:
                if failure is not None:
                    _log.error("not restarted: %s", told(failure))
                over.set()

            supervisor.post(partial(supervisor.restart, supervisor.plan, done))
            over.wait()

    threading.Thread(target=look, name="sapwood-reload", daemon=True).start()


if __name__ == "__main__":
    main()

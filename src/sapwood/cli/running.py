"""A worker in this process: what it serves, and how it is shown."""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import Any

import click
import msgspec

from sapwood import log
from sapwood.cli.command import Invocation
from sapwood.cli.live import Live, logging_to_stderr
from sapwood.cli.output import clean, number
from sapwood.cli.values import flat, listed
from sapwood.options import longest, run_time
from sapwood.worker import Limits, Tally, Worker

_LIVE_LINE = logging.Formatter("%(asctime)s   %(message)s", "%H:%M:%S")
_CONCURRENCY = 5
_POLL = 0.5
_WORDS = {
    "succeeded": "done",
    "retried": "to be tried again",
    "failed": "failed",
    "cancelled": "cancelled",
    "postponed": "put off",
}


class Plan(msgspec.Struct, frozen=True):
    """What a worker is to serve, and how."""

    adapter: str
    queues: Sequence[str] | None
    concurrency: int
    poll: float
    shutdown_timeout: float = 25
    max_runtime: float | None = None


def log_line(name: str | None = None) -> logging.Formatter:
    """Return the form of a log line, with the name of the process where there are several."""
    who = "" if name is None else f"[{clean(name).replace('%', '%%')}] "
    return logging.Formatter(f"%(asctime)s %(levelname)-7s {who}%(message)s", "%Y-%m-%d %H:%M:%S")


def worker_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of every command that runs a worker."""
    for option in (
        click.option("--adapter", metavar="NAME", help="Whose jobs.  [env: SAPWOOD_ADAPTER]"),
        click.option(
            "--queue",
            "queues",
            metavar="NAME",
            type=listed,
            multiple=True,
            help="Only these queues.  [env: SAPWOOD_QUEUES; default: all]",
        ),
        click.option(
            "-c",
            "--concurrency",
            type=click.IntRange(min=1),
            metavar="N",
            help="Jobs at once.  [env: SAPWOOD_CONCURRENCY; default: 5]",
        ),
    ):
        command = option(command)
    return command


def planned(
    call: Invocation,
    queues: tuple[tuple[str, ...], ...],
    concurrency: int | None,
    adapter: str | None,
    poll: float | None,
) -> Plan:
    """Put together what the options, the environment, pyproject.toml and the app's worker groups say."""
    project = call.project
    name = adapter or project.default_adapter
    project.adapter(name)
    groups = [group for group in project.app.workers if group.adapter == name]
    served = setting(call, "queues", flat(queues))
    if served is None and groups and all(group.queues is not None for group in groups):
        served = sorted({queue for group in groups for queue in group.queues or ()})
    slots = max((group.concurrency for group in groups), default=_CONCURRENCY)
    for queue in served or ():
        project.check_queue(queue)
    # One worker serves them all: nobody's time may be cut short by another group's limit.
    most = longest(run_time(group.max_runtime, "max_runtime") for group in groups)
    at_once, rest = setting(call, "concurrency", concurrency), setting(call, "poll", poll)
    slots, rest = slots if at_once is None else at_once, _POLL if rest is None else rest
    return Plan(name, served, slots, rest, max_runtime=most)


def setting(call: Invocation, name: str, given: object = None) -> Any:
    """Return what an option, the environment or pyproject.toml say, None where they say nothing."""
    return call.settings.get(name, given).value


def run(call: Invocation, plan: Plan, *, until_empty: bool) -> Tally:
    """Run a worker, until it is stopped or until nothing is ready."""
    worker = ShownWorker(
        call.project.app,
        adapter=plan.adapter,
        queues=plan.queues,
        concurrency=plan.concurrency,
        poll_interval=plan.poll,
        limits=Limits(shutdown_timeout=plan.shutdown_timeout, max_runtime=plan.max_runtime),
    )
    return run_worker(call, worker, plan.adapter, until_empty=until_empty)


class ShownWorker(Worker):
    """A worker that says when it stops."""

    has_process_to_itself = True
    live: Live | None = None

    def stop(self) -> None:
        """Stop, and say what is waited for."""
        if self.live is not None:
            self.live.stopping()
        super().stop()


def run_worker(
    call: Invocation, worker: ShownWorker, adapter: str, *, name: str | None = None, until_empty: bool = False
) -> Tally:
    """Run a worker and show what its jobs do; ``name`` tells it from others that share the terminal."""
    worker.live = live = Live(call.project.app.adapter(adapter), call.color, name=name)
    shown = _shown(call, live, name, idle=not until_empty and name is None)
    with shown, _stdout_kept_for_data() if call.json else nullcontext():
        return worker.workoff() if until_empty else worker.run()


@contextmanager
def _shown(call: Invocation, live: Live, name: str | None, *, idle: bool) -> Iterator[None]:
    """Show what happens: line by line for people, as log lines for everything else, not at all if told to be quiet."""
    app = call.project.app
    if call.quiet:
        yield
    elif sys.stderr.isatty() and not os.environ.get("CI"):
        app.events.listen(live)
        own = logging_to_stderr(app.logger, _LIVE_LINE, shown=lambda line: line.pathname != log.__file__)
        with own, live.watching(idle=idle):
            yield
    else:
        with logging_to_stderr(app.logger, log_line(name)):
            yield


@contextmanager
def _stdout_kept_for_data() -> Iterator[None]:
    """Send what jobs print to stderr: one JSON document is all that stdout may hold."""
    sys.stdout.flush()
    try:
        stdout = sys.stdout.fileno()
        kept = os.dup(stdout)
    except OSError:
        with redirect_stdout(sys.stderr):
            yield
        return
    os.dup2(sys.stderr.fileno(), stdout)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, stdout)
        os.close(kept)


def in_words(counted: Mapping[str, int]) -> str:
    """Return ``12 done, 1 failed``, or that nothing was ready."""
    parts = [f"{number(counted[name])} {word}" for name, word in _WORDS.items() if counted[name]]
    return ", ".join(parts) if parts else "nothing was ready to run"

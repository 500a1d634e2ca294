"""What a worker in a terminal shows: a line when a job begins, a line when it ends, and why nothing happens."""

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import click

from sapwood.adapters.base import BaseAdapter
from sapwood.cli.output import clean, number, short_name, shortened, span, tell, until
from sapwood.cli.why import title
from sapwood.events import Event, JobEnded, JobFenced, JobStarted, StoreFailed, StoreRecovered, WorkerRescued
from sapwood.lifecycle import Cancelled, Failed, Failure, Released, Retried, Snoozed, Succeeded, Unrecognised
from sapwood.log import Escaping
from sapwood.record import JobRecord

_MOST_LINES = 50
"""Lines per second about jobs that go well. Beyond that they are counted: nobody reads so fast."""

_WIDEST = 200


class Live:
    """Prints what a worker's jobs do. One for each run of a command."""

    def __init__(self, adapter: BaseAdapter, color: bool | None, *, name: str | None = None) -> None:  # noqa: FBT001 - three-valued, see wants_colour
        self._name = name
        self._adapter = adapter
        self._color = color
        self._lock = threading.Lock()
        self._running: dict[int, tuple[JobRecord, float]] = {}
        self._failed_classes: set[str] = set()
        self._recent: deque[float] = deque(maxlen=_MOST_LINES)
        self._unsaid = 0
        self._last = time.monotonic()
        self._idle_said: float | None = None
        self._stopping = threading.Event()
        self._over = threading.Event()

    def stopping(self) -> None:
        """Note that the worker was told to stop. Called in a signal handler: nothing is printed here."""
        self._stopping.set()

    @contextmanager
    def watching(self, *, idle: bool) -> Iterator[None]:
        """Say while a worker runs what it waits for when it stops, and with ``idle`` why it does nothing."""
        watcher = threading.Thread(target=self._watch, args=(idle,), name="sapwood-live", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            self._over.set()
            watcher.join()
            self._say_unsaid()

    def __call__(self, event: Event) -> None:
        """Hear a fact. An app forgets no listener, so this one falls silent when it is over."""
        if self._over.is_set():
            return
        match event:
            case JobStarted(record):
                with self._lock:
                    self._running[record.id] = (record, time.monotonic())
                self._line(f"{click.style('▶', fg='yellow')} {self._title(record)}", record.queue, minor=True)
            case JobEnded(record, outcome, seconds):
                with self._lock:
                    self._running.pop(record.id, None)
                self._ended(record, outcome, seconds)
            case JobFenced(record):
                self._line(f"! {self._title(record)}  outcome refused: another worker has the job, or it is gone")
            case WorkerRescued(worker, records):
                self._line(f"! worker {worker or '(gone)'} died; {number(len(records), 'job')} taken back")
            case StoreFailed(doing, error, again=False):
                self._line(f"! the database failed ({doing}): {shortened(str(error), _WIDEST)}; trying again")
            case StoreRecovered(doing, seconds):
                self._line(f"the database is back ({doing}), after {span(seconds)}")
            case _:
                return
        self._last = time.monotonic()

    def _ended(self, record: JobRecord, outcome: object, seconds: float) -> None:
        took = click.style(span(seconds), dim=True)
        bad, good = click.style("✕", fg="red"), click.style("✓", fg="green")
        attempt = f"try {record.attempts}/{record.max_attempts}"
        match outcome:
            case Succeeded():
                self._line(f"{good} {self._title(record)}  {took}", minor=True)
            case Retried(wait, failure):
                self._line(f"{bad} {self._title(record)}  {took}  {attempt} → again in {span(wait)}")
                self._failure(record, failure)
            case Failed(failure):
                self._line(f"{bad} {self._title(record)}  {took}  {attempt} → failed for good")
                self._failure(record, failure)
            case Unrecognised(wait, failure):
                self._line(f"{bad} {self._title(record)}  {shortened(failure.error, _WIDEST)} → again in {span(wait)}")
            case Snoozed(wait):
                self._line(f"– {self._title(record)}  {took}  not now → again in {span(wait)}")
            case Cancelled(reason):
                self._line(f"– {self._title(record)}  {took}  cancelled: {shortened(reason, _WIDEST)}")
            case Released():
                self._line(f"– {self._title(record)}  given back", minor=True)

    def _failure(self, record: JobRecord, failure: Failure) -> None:
        """Show the traceback of a class's first failure; of the next ones a line."""
        if record.job not in self._failed_classes and failure.traceback:
            self._failed_classes.add(record.job)
            text = "\n".join(f"    {line}" for line in clean(failure.traceback, lines=True).rstrip().splitlines())
            tell(text, color=self._color)
        else:
            tell(f"    {shortened(failure.error, _WIDEST)}    sapwood show {record.id}", color=self._color)

    def _title(self, record: JobRecord) -> str:
        return f"{click.style(short_name(record.job), bold=True)} #{record.id}"

    def _line(self, text: str, after: str = "", *, minor: bool = False) -> None:
        now = time.monotonic()
        if minor:
            with self._lock:
                if len(self._recent) == _MOST_LINES and now - self._recent[0] < 1:
                    self._unsaid += 1
                    return
                self._recent.append(now)
        self._say_unsaid()
        clock = click.style(f"{datetime.now().astimezone():%H:%M:%S}", dim=True)
        after = self._name or after
        aside = "  " + click.style(clean(after), dim=True) if after else ""
        tell(f"{clock} {text}{aside}", color=self._color)

    def _say_unsaid(self) -> None:
        with self._lock:
            unsaid, self._unsaid = self._unsaid, 0
        if unsaid:
            tell(click.style(f"         … and {number(unsaid, 'more line')} like these", dim=True), color=self._color)

    # --- in a thread of its own -------------------------------------------------------------------------------------

    def _watch(self, idle: bool) -> None:  # noqa: FBT001 - the argument of a thread
        told_stopping = False
        while not self._over.wait(0.25):
            if self._stopping.is_set() and not told_stopping:
                told_stopping = True
                self._tell_stopping()
            with self._lock:
                busy = bool(self._running)
            if idle and not busy and not self._stopping.is_set() and time.monotonic() - self._last > 1:
                self._say_unsaid()
                self._tell_idle()

    def _tell_stopping(self) -> None:
        with self._lock:
            running = [
                f"{title(record)} ({span(time.monotonic() - since)})" for record, since in self._running.values()
            ]
        if running:
            tell(f"stopping: waiting for {number(len(running), 'job')}; Ctrl-C again to abandon", color=self._color)
            tell(f"  still running: {', '.join(running)}", color=self._color)

    def _tell_idle(self) -> None:
        """Say once what is waited for; again only when something happened in between."""
        if self._idle_said == self._last:
            return
        why = idle_reason(self._adapter)
        if why is None:
            return
        self._idle_said = self._last
        tell(click.style(f"         idle – {why}", dim=True), color=self._color)


def idle_reason(adapter: BaseAdapter) -> str | None:
    """Return why there is nothing to run, None where that cannot be told or is about to change."""
    try:
        due = adapter.next_run_at()
    except Exception:  # noqa: BLE001 - the worker itself says when its store fails
        return None
    if due is not None and due < datetime.now(UTC) + timedelta(seconds=1):
        return None
    return "no jobs are waiting" if due is None else f"the next job is due {until(due)}"


@contextmanager
def logging_to_stderr(
    logger: object, formatter: logging.Formatter, *, shown: Callable[[logging.LogRecord], bool] = lambda _: True
) -> Iterator[None]:
    """Let the jobs' own log lines be seen, unless the application has seen to that itself.

    Args:
        logger: the app's.
        formatter: how a line looks.
        shown: says of a log line whether it is shown.
    """
    if not isinstance(logger, logging.Logger) or logger.hasHandlers():
        yield
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Escaping(formatter))
    handler.addFilter(shown)
    level = logger.level
    logger.addHandler(handler)
    if logger.getEffectiveLevel() > logging.INFO:
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)

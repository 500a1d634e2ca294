"""The log: one line for each fact, with the job's id, class, queue, try and duration. Never its arguments."""

import logging
from collections.abc import Callable
from typing import Any

from sapwood.events import (
    CodeChanged,
    Event,
    JobEnded,
    JobFenced,
    JobsAbandoned,
    JobsEnqueued,
    JobsReleased,
    JobStarted,
    JobStuck,
    StoreFailed,
    StoreRecovered,
    WorkerDied,
    WorkerFenced,
    WorkerOverran,
    WorkerRescued,
    WorkerStarted,
    WorkerStopped,
)
from sapwood.lifecycle import Cancelled, Failed, Outcome, Released, Retried, Snoozed, Succeeded, Unrecognised
from sapwood.record import JobRecord
from sapwood.wording import escaped, inset, masked, told


class Escaping(logging.Formatter):
    """Writes a line so that nothing in it can forge another, or steer a terminal.

    Args:
        form: the formatter that words the line.
    """

    def __init__(self, form: logging.Formatter) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        """Word the line; what follows a line end in it is set in."""
        first, *others = masked(self._form.format(record)).split("\n")
        return "\n".join([escaped(first), *("    " + escaped(line.expandtabs()) for line in others)])


class LogListener:
    """Writes what happens to the logger of the job's class, or of the app.

    Args:
        logger_for: returns the logger for a stored class name; the empty name stands for the app.
    """

    def __init__(self, logger_for: Callable[[str], Any]) -> None:
        self._logger_for = logger_for

    def __call__(self, event: Event) -> None:
        """Log a fact."""
        match event:
            case JobEnded():
                self._ended(event)
            case JobStarted(record):
                self._line(logging.DEBUG, "%s started %s", record)
            case JobFenced(record):
                self._line(logging.WARNING, "%s: its outcome is refused, another worker has it by now %s", record)
            case JobsEnqueued(drafts, ids):
                for draft, id in zip(drafts, ids, strict=True):  # noqa: A001 - a job's own word
                    self._say(logging.DEBUG, "%s #%d enqueued queue=%s", _name(draft.job), id, escaped(draft.queue))
            case JobsReleased(records, why):
                for record in records:
                    self._line(logging.INFO, "%s given back: " + escaped(why).replace("%", "%%") + " %s", record)
            case JobsAbandoned(records, why):
                for record in records:
                    self._line(logging.WARNING, "%s abandoned: " + escaped(why).replace("%", "%%") + " %s", record)
            case _:
                self._of_workers(event)

    def _ended(self, event: JobEnded) -> None:
        logger = self._logger_for(event.record.job)
        level = _level(event.outcome)
        if _silent(logger, level):
            return
        record = event.record
        words, error = _words(event.outcome)
        line = f"%s #%d {words} queue=%s attempt=%d%s"
        logger.log(
            level,
            line,
            _name(record.job),
            record.id,
            event.seconds * 1000,
            escaped(record.queue),
            record.attempts,
            f": {told(error)}" if error else "",
        )
        failure = getattr(event.outcome, "failure", None)
        if failure is not None and failure.traceback and not _silent(logger, logging.DEBUG):
            story = inset(failure.traceback)
            logger.log(logging.DEBUG, "%s #%d traceback:\n%s", _name(record.job), record.id, story)

    def _of_workers(self, event: Event) -> None:
        match event:
            case WorkerStarted(worker):
                self._say(logging.INFO, "worker %s started pid=%d", escaped(worker.id), worker.pid)
            case WorkerStopped(worker):
                self._say(logging.INFO, "worker %s stopped", escaped(worker.id))
            case WorkerRescued(worker, records):
                who = escaped(worker) or "(none)"
                self._say(logging.WARNING, "worker %s is dead, %d jobs taken back", who, len(records))
            case WorkerFenced(worker):
                self._say(
                    logging.ERROR, "worker %s was declared dead while it lived; it begins anew", escaped(worker.id)
                )
            case WorkerDied(name, pid, how, wait):
                line = "worker %s (pid %d) died: %s; another follows in %.3g s"
                self._say(logging.ERROR, line, escaped(name), pid, told(how), wait)
            case JobStuck(record, ends_process):
                fate = "its process ends with it" if ends_process else "it keeps its slot until it ends by itself"
                self._line(logging.ERROR, "%s has had its time and cannot be stopped: " + fate + " %s", record)
            case WorkerOverran(name, pid):
                self._say(logging.ERROR, "worker %s (pid %d) ended: a job outlasted its time", escaped(name), pid)
            case CodeChanged(files):
                self._say(logging.WARNING, "code changed since start: %s; restart to run it", told(", ".join(files)))
            case _:
                self._of_stores(event)

    def _of_stores(self, event: Event) -> None:
        match event:
            case StoreFailed(doing, error, again):
                level = logging.DEBUG if again else logging.WARNING
                self._say(level, "the store failed (%s): %s", doing, told(str(error)))
            case StoreRecovered(doing, seconds):
                self._say(logging.WARNING, "the store is back (%s), after %.1f s", doing, seconds)

    def _line(self, level: int, words: str, record: JobRecord) -> None:
        logger = self._logger_for(record.job)
        if not _silent(logger, level):
            where = f"queue={escaped(record.queue)} attempt={record.attempts}"
            logger.log(level, words, f"{_name(record.job)} #{record.id}", where)

    def _say(self, level: int, words: str, *values: object) -> None:
        logger = self._logger_for("")
        if not _silent(logger, level):
            logger.log(level, words, *values)


def _silent(logger: Any, level: int) -> bool:
    """Say whether a logger drops the level: lines are worded 50,000 times a second, or not at all."""
    enabled = getattr(logger, "isEnabledFor", None)
    return enabled is not None and not enabled(level)


def _level(outcome: Outcome) -> int:
    match outcome:
        case Succeeded() | Released() | Snoozed() | Cancelled():
            return logging.INFO
        case Retried() | Unrecognised():
            return logging.WARNING
        case _:
            return logging.ERROR


def _words(outcome: Outcome) -> tuple[str, str]:
    """Return what is said of an outcome, with a place for how long it took, and its error."""
    match outcome:
        case Succeeded():
            return "done in %.0f ms", ""
        case Retried(wait, failure):
            return f"failed in %.0f ms, again in {wait:.3g} s", failure.error
        case Failed(failure):
            return "failed for good in %.0f ms", failure.error
        case Unrecognised(wait, failure):
            return f"not known here after %.0f ms, again in {wait:.3g} s", failure.error
        case Snoozed(wait):
            return f"snoozed after %.0f ms, again in {wait:.3g} s", ""
        case Cancelled(reason):
            return "cancelled after %.0f ms", reason
        case _:
            return "given back after %.0f ms", ""


def _name(job: str) -> str:
    """Return the short name of a class: what comes after its module."""
    return escaped(job.rpartition(":")[2])

import logging
import re
from datetime import UTC, datetime, timedelta

import pytest

from sapwood.adapters.memory import MemoryAdapter
from sapwood.cli.live import Live, idle_reason, logging_to_stderr
from sapwood.events import JobEnded, JobFenced, JobsEnqueued, JobStarted, StoreFailed, StoreRecovered, WorkerRescued
from sapwood.lifecycle import Cancelled, Failed, Failure, Released, Retried, Snoozed, Succeeded, Unrecognised, drafted
from sapwood.record import JobDraft

RECORD = drafted(JobDraft(job="jobs:Fetch", args="{}", queue="net"), id=7, now=datetime(2030, 1, 1, tzinfo=UTC))


@pytest.fixture
def live():
    return Live(MemoryAdapter(), color=False)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (JobStarted(RECORD), "▶ Fetch #7  net\n"),
        (JobEnded(RECORD, Succeeded(), 0.142), "✓ Fetch #7  142ms\n"),
        (
            JobEnded(RECORD, Retried(16, Failure("Error: a\x1b")), 1.2),
            "✕ Fetch #7  1.2s  try 0/24 → again in 16s\n    Error: a\\x1b    sapwood show 7\n",
        ),
        (
            JobEnded(RECORD, Failed(Failure("Error: a", "Traceback:\n  one\x1b\n")), 1.2),
            "✕ Fetch #7  1.2s  try 0/24 → failed for good\n    Traceback:\n      one\\x1b\n",
        ),
        (JobEnded(RECORD, Unrecognised(60, Failure("no class")), 0), "✕ Fetch #7  no class → again in 1m\n"),
        (JobEnded(RECORD, Snoozed(5), 0), "– Fetch #7  0ms  not now → again in 5.0s\n"),
        (JobEnded(RECORD, Cancelled("enough"), 0), "– Fetch #7  0ms  cancelled: enough\n"),
        (JobEnded(RECORD, Released(), 0), "– Fetch #7  given back\n"),
        (JobFenced(RECORD), "! Fetch #7  outcome refused: another worker has the job, or it is gone\n"),
        (WorkerRescued("w1", (RECORD,)), "! worker w1 died; 1 job taken back\n"),
        (StoreFailed("exchange", OSError("gone")), "! the database failed (exchange): gone; trying again\n"),
        (StoreRecovered("exchange", 12), "the database is back (exchange), after 12s\n"),
    ],
)
def test_each_fact_has_its_line(live, capsys, event, expected):
    live(event)
    err = capsys.readouterr().err
    assert re.match(r"\d\d:\d\d:\d\d ", err)
    assert err[9:] == expected


def test_what_fails_as_before_has_no_further_line(live, capsys):
    live(StoreFailed("exchange", OSError("gone"), again=True))
    assert capsys.readouterr().err == ""


def test_other_facts_are_not_shown(live, capsys):
    live(JobsEnqueued((), ()))
    assert capsys.readouterr().err == ""


def test_the_first_failure_of_a_class_shows_its_traceback_the_next_ones_a_line(live, capsys):
    failure = JobEnded(RECORD, Retried(1, Failure("Error: a", "Traceback:\n  where")), 0)
    live(failure)
    assert "where" in capsys.readouterr().err
    live(failure)
    assert capsys.readouterr().err.endswith("    Error: a    sapwood show 7\n")


def test_more_lines_than_anybody_reads_are_counted(live, capsys):
    for _ in range(60):
        live(JobStarted(RECORD))
    live(JobFenced(RECORD))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 52
    assert lines[-2].strip() == "… and 10 more lines like these"


def test_when_it_is_over_it_is_silent(live, capsys):
    with live.watching(idle=False):
        pass
    live(JobStarted(RECORD))
    assert capsys.readouterr().err == ""


def test_why_nothing_happens_is_said_in_words():
    now = datetime.now(UTC)
    adapter = MemoryAdapter()
    assert idle_reason(adapter) == "no jobs are waiting"
    adapter.enqueue([JobDraft(job="a:B", args="{}", run_at=now + timedelta(seconds=299))])
    assert idle_reason(adapter) == "the next job is due in 5m"
    adapter.enqueue([JobDraft(job="a:B", args="{}", run_at=now + timedelta(seconds=0.5))])
    assert idle_reason(adapter) is None


def test_why_nothing_happens_is_not_said_where_the_store_does_not_tell(monkeypatch):
    adapter = MemoryAdapter()

    def gone():
        raise OSError("gone")

    monkeypatch.setattr(adapter, "next_run_at", gone)
    assert idle_reason(adapter) is None


def quiet_logger():
    logger = logging.Logger("shop")  # noqa: LOG001 - one that the handlers of pytest do not hear
    logger.setLevel(logging.WARNING)
    return logger


def test_log_lines_are_shown_where_nobody_else_shows_them(capsys):
    logger = quiet_logger()
    with logging_to_stderr(logger, logging.Formatter("%(message)s"), shown=lambda line: "no" not in line.msg):
        logger.info("yes")
        logger.info("no")
    assert capsys.readouterr().err == "yes\n"
    assert (logger.level, logger.handlers) == (logging.WARNING, [])


def test_an_application_that_logs_by_itself_is_left_alone(capsys):
    logger = quiet_logger()
    logger.addHandler(logging.NullHandler())
    with logging_to_stderr(logger, logging.Formatter("%(message)s")):
        logger.warning("once")
    with logging_to_stderr(object(), logging.Formatter("%(message)s")):
        pass
    assert capsys.readouterr().err == ""

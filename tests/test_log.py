"""The log: one line per fact, and nothing that could do harm."""

import logging
from datetime import UTC, datetime
from textwrap import indent

import pytest
from msgspec.structs import replace

from sapwood import Job, MemoryAdapter, Sapwood, Worker
from sapwood.events import (
    CodeChanged,
    JobEnded,
    JobFenced,
    JobsAbandoned,
    JobsEnqueued,
    JobsReleased,
    JobStarted,
    StoreFailed,
    StoreRecovered,
    WorkerDied,
    WorkerFenced,
    WorkerRescued,
    WorkerStarted,
    WorkerStopped,
)
from sapwood.lifecycle import Cancelled, Failed, Failure, Released, Retried, Snoozed, Succeeded, Unrecognised
from sapwood.record import JobDraft, JobRecord, JobState, WorkerRecord

MOMENT = datetime(2030, 1, 1, tzinfo=UTC)
RECORD = JobRecord(
    id=12,
    state=JobState.RUNNING,
    queue="email",
    priority=50,
    run_at=MOMENT,
    job="shop.jobs:WelcomeEmail",
    args='{"card": "4111111111111111"}',
    attempts=2,
    created_at=MOMENT,
)
DRAFT = JobDraft(job=RECORD.job, args=RECORD.args, queue="email")
WORKER = WorkerRecord(id="w1", host="here", pid=7, queues=None, concurrency=5, release="0")
FAILURE = Failure("ValueError: no mailbox", "Traceback\n  line one\nValueError: no mailbox")
HOSTILE = "\x1b[2J\r\nINFO forged\x00\x07\x9b31m\u202e\u2066\u2028"
STORABLE = HOSTILE.replace("\0", "")
"""A name that a store accepts may still hold orders to a terminal."""


class OwnLogger(Job, name="log.own", logger=logging.getLogger("own")):
    def perform(self) -> None:
        self.logger.info("inside")


class Speaks(Job, name="log.speaks", queue="email"):
    def perform(self, secret: str) -> None:
        self.logger.info("inside")


class Plain:
    """A logger with the methods of the standard library's, and not of its family."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, str]] = []

    def log(self, level: int, message: str, *values: object) -> None:
        self.lines.append((level, message % values))

    def info(self, message: str, *values: object) -> None:
        self.log(logging.INFO, message, *values)


@pytest.fixture
def app(caplog):
    caplog.set_level(logging.DEBUG, "sapwood")
    app = Sapwood(MemoryAdapter())
    caplog.clear()
    return app


FACTS = [
    (JobStarted(RECORD), logging.DEBUG, ["started"]),
    (JobsEnqueued((DRAFT,), (12,)), logging.DEBUG, ["enqueued"]),
    (JobEnded(RECORD, Succeeded(), 0.142), logging.INFO, ["done", "142 ms"]),
    (JobEnded(RECORD, Retried(16, Failure("ValueError: x")), 0.142), logging.WARNING, ["16 s", "ValueError: x"]),
    (JobEnded(RECORD, Failed(Failure("ValueError: x")), 0.142), logging.ERROR, ["for good", "ValueError: x"]),
    (JobEnded(RECORD, Unrecognised(60, Failure("UnknownJob: x")), 0.1), logging.WARNING, ["60 s", "UnknownJob"]),
    (JobEnded(RECORD, Snoozed(30), 0.142), logging.INFO, ["snoozed", "30 s"]),
    (JobEnded(RECORD, Cancelled("not any more"), 0.142), logging.INFO, ["cancelled", "not any more"]),
    (JobEnded(RECORD, Released(), 0.142), logging.INFO, ["given back"]),
    (JobFenced(RECORD), logging.WARNING, ["refused"]),
    (JobsReleased((RECORD,), "100 % of them"), logging.INFO, ["given back", "100 % of them"]),
]


@pytest.mark.parametrize(("fact", "level", "words"), FACTS, ids=lambda value: type(value).__name__)
def test_a_fact_about_a_job_is_one_line_with_its_id_class_and_queue(app, caplog, fact, level, words):
    app.events.emit(fact)
    [line] = caplog.records
    text = line.getMessage()
    assert line.levelno == level
    assert [word for word in ["WelcomeEmail", "#12", "queue=email", *words] if word not in text] == []
    assert "4111" not in text
    assert "\n" not in text


@pytest.mark.parametrize(
    "fact", [fact for fact, _, _ in FACTS if not isinstance(fact, JobsEnqueued)], ids=lambda fact: type(fact).__name__
)
def test_a_fact_about_a_run_tells_the_attempt(app, caplog, fact):
    app.events.emit(fact)
    assert "attempt=2" in caplog.text


@pytest.mark.parametrize(
    ("fact", "level", "words"),
    [
        (WorkerStarted(WORKER), logging.INFO, ["w1", "started"]),
        (WorkerStopped(WORKER), logging.INFO, ["w1", "stopped"]),
        (WorkerRescued("w1", (RECORD,)), logging.WARNING, ["w1", "dead", "1 job"]),
        (WorkerFenced(WORKER), logging.ERROR, ["w1", "declared dead"]),
        (StoreFailed("work", OSError("disk full")), logging.WARNING, ["work", "disk full"]),
        (StoreFailed("work", OSError("disk full"), again=True), logging.DEBUG, ["work", "disk full"]),
        (StoreRecovered("work", 12.34), logging.WARNING, ["back", "work", "12.3 s"]),
        (WorkerDied("email.1", 7, "killed by SIGKILL", 2), logging.ERROR, ["email.1", "7", "SIGKILL", "2 s"]),
        (CodeChanged(("a.py", "b.py")), logging.WARNING, ["a.py, b.py", "restart"]),
        (JobsAbandoned((RECORD,), "not finished in time"), logging.WARNING, ["abandoned", "not finished in time"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_fact_about_a_worker_is_one_line(app, caplog, fact, level, words):
    app.events.emit(fact)
    [line] = caplog.records
    assert line.levelno == level
    assert [word for word in words if word not in line.getMessage()] == []


def test_the_traceback_of_a_failure_is_there_for_who_looks_closely(app, caplog):
    app.events.emit(JobEnded(RECORD, Failed(FAILURE), 0.1))
    line, closer = caplog.records
    assert (line.levelno, closer.levelno) == (logging.ERROR, logging.DEBUG)
    assert closer.getMessage().endswith(indent(FAILURE.traceback, "    "))
    assert "line one" not in line.getMessage()


@pytest.mark.parametrize(
    "fact",
    [
        JobEnded(RECORD, Failed(Failure(HOSTILE)), 0.1),
        JobEnded(RECORD, Retried(1, Failure(HOSTILE)), 0.1),
        JobEnded(RECORD, Cancelled(HOSTILE), 0.1),
        JobStarted(replace(RECORD, job=f"shop:{HOSTILE}", queue=HOSTILE)),
        JobEnded(replace(RECORD, job=f"shop:{HOSTILE}", queue=HOSTILE), Succeeded(), 0.1),
        JobsEnqueued((JobDraft(job=STORABLE, args="{}", queue=STORABLE),), (1,)),
        JobsReleased((RECORD,), HOSTILE),
        StoreFailed("work", OSError(HOSTILE)),
        WorkerDied(HOSTILE, 7, "killed by SIGKILL", 2),
        CodeChanged((HOSTILE,)),
        JobsAbandoned((RECORD,), HOSTILE),
    ],
    ids=lambda fact: type(fact).__name__,
)
def test_no_text_of_others_can_forge_a_line_or_steer_a_terminal(app, caplog, fact):
    app.events.emit(fact)
    [line] = caplog.records
    assert line.getMessage().isprintable()
    assert "INFO forged" in line.getMessage()


def test_a_traceback_keeps_its_lines_and_nothing_else_that_is_not_printable(app, caplog):
    app.events.emit(JobEnded(RECORD, Failed(Failure("E", "one\ntwo \x1b[31m \u202e")), 0.1))
    told = caplog.records[-1].getMessage().split("\n")
    assert len(told) == 3
    assert all(line.isprintable() for line in told)


def test_a_huge_error_is_cut(app, caplog):
    app.events.emit(JobEnded(RECORD, Failed(Failure("x" * 60_000)), 0.1))
    assert len(caplog.records[0].getMessage()) < 2000


def test_an_app_has_a_logger_of_its_users_choice(caplog):
    caplog.set_level(logging.INFO, "mine")
    app = Sapwood(MemoryAdapter(), logger=logging.getLogger("mine"))
    caplog.clear()
    app.events.emit(JobEnded(RECORD, Succeeded(), 0.1))
    Speaks.perform_now("x")
    assert [line.name for line in caplog.records] == ["mine", "mine"]


def test_a_job_class_may_have_a_logger_of_its_own(app, caplog):
    caplog.set_level(logging.INFO, "own")
    OwnLogger.perform_later()
    Worker(app).workoff()
    inside, done = [line.getMessage() for line in caplog.records if line.name == "own"]
    assert (inside, "own #1 done" in done) == ("inside", True)


def test_what_a_job_says_carries_which_job_it_is(app, caplog):
    handle = Speaks.perform_later("x")
    Worker(app).workoff()
    [line] = [line for line in caplog.records if line.getMessage() == "inside"]
    assert (line.job_id, line.job, line.queue, line.attempt) == (handle.id, "log.speaks", "email", 1)


def test_any_logger_with_the_usual_methods_serves():
    plain = Plain()
    app = Sapwood(MemoryAdapter(), logger=plain)
    Speaks.perform_later("x")
    Worker(app).workoff()
    said = [text for _, text in plain.lines]
    assert "inside" in said
    assert any("done" in text for text in said)


def test_arguments_are_never_logged(app, caplog):
    Speaks.perform_later("4111111111111111")
    Worker(app).workoff()
    assert "inside" in caplog.text
    assert "4111" not in caplog.text


def test_nothing_is_worded_that_nobody_will_read(app, caplog):
    caplog.set_level(logging.ERROR, "sapwood")

    class Untold(Failure):
        @property
        def error(self) -> str:
            raise AssertionError("worded")

    app.events.emit(JobEnded(RECORD, Retried(1, Untold("x")), 0.1))
    assert caplog.records == []


def test_the_root_logger_is_left_alone():
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    app = Sapwood(MemoryAdapter())
    Speaks.perform_later("x")
    Worker(app).workoff()
    assert (root.level, root.handlers) == before
    assert logging.getLogger("sapwood").handlers == []

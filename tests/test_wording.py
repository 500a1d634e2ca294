"""Whatever others call their jobs, queues and errors, a line stays a line and a terminal is given no orders."""

import logging
from datetime import UTC, datetime
from io import StringIO

import pytest

from sapwood import MemoryAdapter, Sapwood
from sapwood.cli.live import Live
from sapwood.cli.output import clean, complain, say, short_name, shortened, table, tell
from sapwood.cli.why import reason
from sapwood.errors import SapwoodError
from sapwood.events import (
    CodeChanged,
    JobEnded,
    JobFenced,
    JobsAbandoned,
    JobsEnqueued,
    JobsReleased,
    JobStarted,
    StoreFailed,
    WorkerDied,
    WorkerFenced,
    WorkerRescued,
    WorkerStarted,
    WorkerStopped,
)
from sapwood.lifecycle import Cancelled, Failed, Failure, Retried, Snoozed, Succeeded, Unrecognised
from sapwood.log import Escaping
from sapwood.record import JobDraft, JobRecord, JobState, WorkerRecord
from sapwood.wording import escaped, story, told

HOSTILE = (
    "\n2030-01-01 ERROR forged",
    "\r\nforged",
    "\rforged",
    "\x1b[2J",
    "\x1b[31mred",
    "\x1b]0;title\x07",
    "\x1b]52;c;b3duZWQ=\x07",
    "\x1b]8;;http://evil\x1b\\link",
    "\x1bP+q\x1b\\",
    "\x1bc",
    "\x9b31m",
    "\x9d0;title\x9c",
    "\x90q\x9c",
    "\x00",
    "\x07\x08\x08\x08",
    "\x0b\x0c",
    "\x7f\x7f",
    "\x85next line",
    "\u2028line\u2029paragraph",
    "\u202egnp.exe",
    "\u202d\u202a\u202b\u202c",
    "\u2066\u2067\u2068\u2069",
    "\u200e\u200f\u061c",
    "\u206a\u206f",
    "\ufeffmark",
    "\ufff9\ufffa\ufffb",
    "\U000e0001\U000e0041\U000e007f",
    "\ud800 half",
    "\udc80 byte",
    "\x1b\x1b[\x1b[0m",
    "%s%n%(levelname)s",
    "\t\x1f\x1c\x1d\x1e",
)
MOMENT = datetime(2030, 1, 1, tzinfo=UTC)


def is_harmless(text, lines=1):
    return escaped(text.replace("\n", "")) == text.replace("\n", "") and text.rstrip("\n").count("\n") < lines


def record_of(bad):
    return JobRecord(
        id=1, state=JobState.RUNNING, queue=bad, priority=50, run_at=MOMENT, job=bad, args=bad, created_at=MOMENT
    )


def worker_of(bad):
    return WorkerRecord(id=bad, host=bad, pid=1, queues=[bad], concurrency=1, release=bad, name=bad)


def facts(bad):
    record, worker, failure = record_of(bad), worker_of(bad), Failure(bad, bad)
    outcomes = (Succeeded(), Retried(1, failure), Failed(failure), Unrecognised(1, failure), Snoozed(1), Cancelled(bad))
    yield from (JobEnded(record, outcome, 0.1) for outcome in outcomes)
    yield from (JobStarted(record), JobFenced(record), JobsReleased((record,), bad), JobsAbandoned((record,), bad))
    yield from (WorkerStarted(worker), WorkerStopped(worker), WorkerFenced(worker), WorkerRescued(bad, (record,)))
    yield from (WorkerDied(bad, 1, bad, 1), CodeChanged((bad,)), StoreFailed("work", OSError(bad)))


@pytest.mark.parametrize("bad", HOSTILE, ids=ascii)
def test_no_field_of_a_fact_forges_a_line_of_the_log(bad, caplog):
    caplog.set_level(logging.DEBUG, "sapwood")
    app = Sapwood(MemoryAdapter())
    caplog.clear()
    for fact in facts(bad):
        app.events.emit(fact)
    if "\0" not in bad and "\ud800" not in bad and "\udc80" not in bad:
        app.events.emit(JobsEnqueued((JobDraft(job=bad, args=bad, queue=bad),), (1,)))
    assert len(caplog.records) >= 17
    assert [line for line in caplog.messages if not is_harmless(line, 9)] == []
    # Only a traceback has lines, and they are set in.
    assert [line for line in caplog.messages if "\n" in line and "traceback:" not in line] == []
    assert [line for line in caplog.messages if "\n" in line.replace("\n    ", "")] == []


@pytest.mark.parametrize("bad", HOSTILE, ids=ascii)
def test_no_line_that_the_commands_log_is_forged_by_what_a_job_says(bad):
    paper = StringIO()
    handler = logging.StreamHandler(paper)
    handler.setFormatter(Escaping(logging.Formatter("%(asctime)s %(levelname)s %(message)s")))
    handler.handle(logging.LogRecord("mine", logging.INFO, "", 1, "said: %s", (bad,), None))
    first, *others = paper.getvalue().splitlines()
    assert is_harmless(paper.getvalue(), 3)
    assert " INFO said: " in first
    assert all(line.startswith("    ") for line in others)


@pytest.mark.parametrize("bad", HOSTILE, ids=ascii)
def test_no_text_gives_orders_to_a_terminal(bad, capsys):
    record = record_of(bad)
    for text in (clean(bad), shortened(bad, 60), short_name(f"a:{bad}"), told(bad), escaped(bad)):
        assert is_harmless(text)
    assert is_harmless(story(ValueError(bad)), 10)
    live = Live(MemoryAdapter(), color=False)
    for fact in facts(bad):
        live(fact)
    complain(SapwoodError(bad, why=bad, mend=bad), color=False)
    why = reason(record, [worker_of("x")], [])
    say(bad)
    tell(bad)
    say(f"{why and why.why}")
    table(("A", "B"), [(clean(bad), clean(bad))])
    out, err = capsys.readouterr()
    shown = [char for char in out + err if char not in "\n\t" and escaped(char) != char]
    # Colours alone are let through where nobody has cleaned a text.
    assert [char for char in shown if char != "\x1b"] == []
    assert (out + err).count("\x1b") == (out + err).count("\x1b[31m") + (out + err).count("\x1b[0m")

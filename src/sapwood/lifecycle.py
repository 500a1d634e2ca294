"""The state machine of a job: pure functions from value to value, with no clock and no database.

::

    enqueue ──▶ scheduled ──promoted──▶ ready ──claimed──▶ running ──settled──▶ row deleted | succeeded
       └──────────────────────────────▶ ready                 ├──────settled──▶ scheduled (retry, snooze, unknown class)
                                                              ├──────settled──▶ failed | cancelled
                                                              ├─settled, rescued─▶ ready (given back)
                                                              └─────rescued───▶ failed (last try spent, or 3 deaths)
    scheduled | ready | blocked ──cancelled──▶ cancelled
    failed | cancelled | scheduled ──retried──▶ ready

A job that is to run at most once is *marked* just before it runs. Once it is, no arrow leads back to where it could run
again, but that of an operator.

An adapter reads a row, applies one of these functions, and writes what it returned. In-memory and SQL adapters
therefore cannot disagree about what a transition means.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from sapwood.record import WAITING, JobAttempt, JobDraft, JobRecord, JobState, check_queue

MAX_DEATHS = 3
"""A job that was running at this many deaths of workers is failed: it is the likely cause."""

KILLED_ITS_WORKER = "killed its worker"
DAMAGED_ITS_WORKER = "damaged its worker: descriptors that it had not opened were closed or replaced"

TIMED_OUT = "timeout: it could not be stopped in its time, and was ended with its worker"

STARTED_ONCE = "started once, outcome unknown"
"""Why a job that may run only once is failed when nobody can tell what came of its run."""

_LONGEST_WAIT = timedelta(days=366).total_seconds()


class Failure(Struct, frozen=True):
    """Why a try failed, as text that every store can keep."""

    error: str
    """Type and message."""

    traceback: str | None = None


class Succeeded(Struct, frozen=True):
    """``perform`` returned."""

    keep: bool = False
    """Keep the row, as succeeded."""

    result: str | None = None
    """What it returned, as JSON; stored only with ``keep``."""

    written: bool = False
    """It is in the store already, by the transaction that the job worked in."""


class Retried(Struct, frozen=True):
    """The try failed; another follows after ``wait`` seconds."""

    wait: float
    failure: Failure


class Failed(Struct, frozen=True):
    """The try failed, and it was the last."""

    failure: Failure


class Snoozed(Struct, frozen=True):
    """Not now: again after ``wait`` seconds, the try given back."""

    wait: float


class Unrecognised(Struct, frozen=True):
    """No class of that name is loaded here: again after ``wait`` seconds, the try given back."""

    wait: float
    failure: Failure


class Cancelled(Struct, frozen=True):
    """The job asked not to be run again."""

    reason: str


class Released(Struct, frozen=True):
    """It was not started, or must start anew elsewhere: ready at once, the try given back."""

    written: bool = False
    """The store knows already, or has somebody else at the job: there is nothing to write."""


Outcome = Succeeded | Retried | Failed | Snoozed | Unrecognised | Cancelled | Released
"""What came of one claim of a job."""


class Trace(StrEnum):
    """What is known of a job whose worker died."""

    NOT_STARTED = "not started"
    STARTED = "started"
    ENDED_WELL = "ended well"
    ENDED_BADLY = "ended badly"
    TIMED_OUT = "timed out"
    """It had outlasted its time, and its process was ended for that."""

    SUSPECTED = "suspected"
    """It ran when the worker found itself damaged, and ended for that."""

    UNKNOWN = "unknown"
    """The worker's notes are out of reach: its host is gone."""


def drafted(draft: JobDraft, *, id: int, now: datetime) -> JobRecord:
    """Return the record that ``draft`` becomes when it is stored at ``now``."""
    run_at = draft.run_at if draft.run_at is not None else now + timedelta(seconds=draft.wait)
    return JobRecord(
        id=id,
        state=_waiting_state(run_at, now),
        queue=draft.queue,
        priority=draft.priority,
        run_at=run_at,
        job=draft.job,
        args=draft.args,
        max_attempts=draft.max_attempts,
        created_at=now,
    )


def promoted(record: JobRecord) -> JobRecord:
    """Return a due record as one that may be claimed."""
    return replace(record, state=JobState.READY)


def claimed(record: JobRecord, *, worker: str, now: datetime) -> JobRecord:
    """Return a ready record as one that ``worker`` runs. The try counts from here on."""
    return replace(
        record,
        state=JobState.RUNNING,
        locked_by=worker,
        locked_at=now,
        lock_token=record.lock_token + 1,
        attempts=record.attempts + 1,
    )


def settled(record: JobRecord, outcome: Outcome, *, now: datetime) -> JobRecord | None:
    """Return the record that a running job leaves behind, or None where the row goes."""
    unlocked = replace(record, locked_by=None, locked_at=None, unknown_since=None, started_at=None)
    match _for_good(record, outcome):
        case Succeeded(keep=False):
            return None
        case Succeeded(result=result):
            return replace(unlocked, state=JobState.SUCCEEDED, finished_at=now, alone=False, result=result)
        case Retried(wait, failure):
            return replace(_later(unlocked, wait, now), last_error=failure.error)
        case Failed(failure):
            return _failed(unlocked, failure.error, now)
        case Snoozed(wait):
            return _attempt_given_back(_later(unlocked, wait, now))
        case Unrecognised(wait, failure):
            return replace(
                _attempt_given_back(_later(unlocked, wait, now)),
                last_error=failure.error,
                unknown_since=record.unknown_since or now,
            )
        case Cancelled(reason):
            return replace(unlocked, state=JobState.CANCELLED, finished_at=now, last_error=reason)
        case Released():
            return _attempt_given_back(
                replace(unlocked, state=JobState.READY, unknown_since=record.unknown_since),
            )
    assert_never(outcome)


def attempted(record: JobRecord, outcome: Outcome, *, now: datetime) -> JobAttempt | None:
    """Return the line of history that a failed try leaves, None for every other outcome."""
    match _for_good(record, outcome):
        case Retried(failure=failure) | Failed(failure=failure):
            return JobAttempt(
                job_id=record.id,
                attempt=record.attempts,
                worker=record.locked_by,
                started_at=record.locked_at,
                finished_at=now,
                error=failure.error,
                traceback=failure.traceback,
            )
        case _:
            return None


def marked(record: JobRecord, *, now: datetime) -> JobRecord | None:
    """Return a running record as one whose only run begins; None where it began before."""
    return replace(record, started_at=now) if record.started_at is None else None


def rescued(record: JobRecord, trace: Trace, *, now: datetime) -> JobRecord:
    """Return the record that a job leaves behind whose worker is proven dead.

    ======================  ==========  ======
    what the notes say      the try     deaths
    ======================  ==========  ======
    not started             given back  as before
    started, not ended      spent       one more
    ended well, unwritten   given back  as before
    ended badly, unwritten  spent       as before
    timed out               spent       as before
    suspected of damage     given back  one more
    nothing (host gone)     given back  one more
    ======================  ==========  ======

    What timed out waits ``attempts ** 4`` seconds, as after a failed try: all others are ready at once. One that is
    marked may have run, whatever the notes say, and is failed.
    """
    died = trace in {Trace.STARTED, Trace.UNKNOWN, Trace.SUSPECTED}
    if record.started_at is not None:
        left = replace(record, locked_by=None, locked_at=None, deaths=record.deaths + died)
        return _failed(left, STARTED_ONCE, now)
    spent = trace in {Trace.STARTED, Trace.ENDED_BADLY, Trace.TIMED_OUT}
    left = replace(
        record,
        state=JobState.READY,
        locked_by=None,
        locked_at=None,
        attempts=record.attempts - (not spent),
        deaths=record.deaths + died,
        alone=record.alone or died,
        last_error=_blamed(trace) if died else TIMED_OUT if trace is Trace.TIMED_OUT else record.last_error,
    )
    if left.deaths >= MAX_DEATHS or (spent and left.attempts >= left.max_attempts):
        return _failed(left, left.last_error or "its last try failed, its outcome was lost with its worker", now)
    return _later(left, min(left.attempts**4, _LONGEST_WAIT), now) if trace is Trace.TIMED_OUT else left


def lost(record: JobRecord, trace: Trace, *, now: datetime) -> JobAttempt | None:
    """Return the line of history that a death leaves, None where the try was not begun or ended well."""
    if record.started_at is not None:
        return attempted(record, Failed(Failure(STARTED_ONCE)), now=now)
    if trace in {Trace.NOT_STARTED, Trace.ENDED_WELL}:
        return None
    errors = {Trace.ENDED_BADLY: "failed, its outcome was lost with its worker", Trace.TIMED_OUT: TIMED_OUT}
    return attempted(record, Failed(Failure(errors.get(trace, _blamed(trace)))), now=now)


def retried(record: JobRecord, *, now: datetime) -> JobRecord | None:
    """Return a job that an operator wants run now, with at least one more try; None where it cannot be."""
    if record.state not in {JobState.FAILED, JobState.CANCELLED, JobState.SCHEDULED}:
        return None
    return replace(
        record,
        state=JobState.READY,
        run_at=now,
        max_attempts=max(record.max_attempts, record.attempts + 1),
        deaths=0,
        alone=False,
        unknown_since=None,
        failed_at=None,
        finished_at=None,
        started_at=None,
    )


def cancelled(record: JobRecord, *, now: datetime) -> JobRecord | None:
    """Return a waiting job as cancelled; None where it does not wait."""
    if record.state not in WAITING:
        return None
    return replace(record, state=JobState.CANCELLED, finished_at=now)


class Edit(Struct, frozen=True, kw_only=True):
    """What an operator changes of a waiting job; None leaves it as it is."""

    queue: str | None = None
    priority: int | None = None
    run_at: datetime | None = None
    args: str | None = None

    def __post_init__(self) -> None:
        """Refuse a name that not every store can hold."""
        if self.queue is not None:
            check_queue(self.queue)


def edited(record: JobRecord, edit: Edit, *, now: datetime) -> JobRecord | None:
    """Return a waiting job with ``edit`` applied; None where it does not wait."""
    if record.state not in WAITING:
        return None
    run_at = edit.run_at or record.run_at
    moved = edit.run_at is not None and record.state is not JobState.BLOCKED
    return replace(
        record,
        state=_waiting_state(run_at, now) if moved else record.state,
        run_at=run_at,
        queue=edit.queue or record.queue,
        priority=edit.priority or record.priority,
        args=edit.args or record.args,
    )


def _for_good(record: JobRecord, outcome: Outcome) -> Outcome:
    """Return the outcome, but of a marked job none that would have it run once more."""
    if record.started_at is None:
        return outcome
    match outcome:
        case Retried(failure=failure):
            return Failed(failure)
        case Released():
            return Failed(Failure(STARTED_ONCE))
        case _:
            return outcome


def _waiting_state(run_at: datetime, now: datetime) -> JobState:
    return JobState.READY if run_at <= now else JobState.SCHEDULED


def _later(record: JobRecord, wait: float, now: datetime) -> JobRecord:
    run_at = now + timedelta(seconds=wait)
    return replace(record, state=_waiting_state(run_at, now), run_at=run_at)


def _failed(record: JobRecord, error: str, now: datetime) -> JobRecord:
    return replace(record, state=JobState.FAILED, last_error=error, failed_at=now, finished_at=now)


def _blamed(trace: Trace) -> str:
    return DAMAGED_ITS_WORKER if trace is Trace.SUSPECTED else KILLED_ITS_WORKER


def _attempt_given_back(record: JobRecord) -> JobRecord:
    return replace(record, attempts=record.attempts - 1)

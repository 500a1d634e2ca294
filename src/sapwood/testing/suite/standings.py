"""Where a job can stand when a verb meets it: how it got there, and what its row then says, field by field."""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from sapwood.lifecycle import Failed, Retried, Succeeded, Trace, Unrecognised
from sapwood.record import JobAttempt, JobRecord, JobState
from sapwood.testing.suite.bench import BOOM, CLAIMED, ENDED, STORED, Bench, at, draft

KILLED = "killed its worker"
STARTED_ONCE = "started once, outcome unknown"
DAMAGED = "damaged its worker: descriptors that it had not opened were closed or replaced"
UNKNOWN_CLASS = "UnknownJob: no class is named shop.jobs:Resize"

LOCKED = {"state": JobState.RUNNING, "locked_by": "w1", "locked_at": CLAIMED, "attempts": 1, "lock_token": 1}
UNLOCKED = {"locked_by": None, "locked_at": None}


class Standing(Struct, frozen=True):
    """A place in the life of a job."""

    arrive: Callable[[Bench], JobRecord]
    fields: Mapping[str, Any]
    """What differs from the row of a job that was stored ready."""

    history: tuple[JobAttempt, ...] = ()
    """The failed tries so far, with the id 0 for the job's."""


def stored(id: int, fields: Mapping[str, Any]) -> JobRecord:
    """Return the row of a job that was stored ready, with ``fields`` changed."""
    fresh = JobRecord(
        id=id,
        state=JobState.READY,
        queue="here",
        priority=50,
        run_at=STORED,
        job="shop.jobs:Resize",
        args='{"photo_id": 1}',
        created_at=STORED,
    )
    return replace(fresh, **fields)


def line(error: str, traceback: str | None = None, **fields: Any) -> JobAttempt:
    """Return a line of history: by default of the first try, claimed and ended when the standings say."""
    known: dict[str, Any] = {"job_id": 0, "attempt": 1, "worker": "w1", "started_at": CLAIMED, "finished_at": ENDED}
    return JobAttempt(**known | fields, error=error, traceback=traceback)


def _scheduled(bench: Bench) -> JobRecord:
    return bench.enqueue(draft(wait=3600))[0]


def _due(bench: Bench) -> JobRecord:
    return bench.enqueue(draft(wait=50))[0]


def _ready(bench: Bench) -> JobRecord:
    return bench.ready()[0]


def _set_apart(bench: Bench) -> JobRecord:
    record = _rescued(bench, bench.running()[0], Trace.STARTED)
    bench.register("w1")
    return record


def _running(bench: Bench) -> JobRecord:
    return bench.running()[0]


def _on_its_last_try(bench: Bench) -> JobRecord:
    return bench.running(max_attempts=1)[0]


def _marked(bench: Bench) -> JobRecord:
    record = bench.running()[0]
    bench.adapter.mark("w1", record, now=ENDED)
    return bench.look(record.id)


def _begun_once(bench: Bench) -> JobRecord:
    record = _rescued(bench, _marked(bench), Trace.STARTED)
    bench.register("w1")
    return record


def _worn(bench: Bench) -> JobRecord:
    """Return a job that has met nearly everything and runs again."""
    _rescued(bench, bench.running()[0], Trace.UNKNOWN)
    bench.register("w1")
    for seconds in (11, 12):
        (again,) = bench.claim(now=at(seconds), queues=["here"], alone=True)
        bench.settle(again, Unrecognised(0, replace(BOOM, error=UNKNOWN_CLASS)), now=at(seconds + 0.5))
    return bench.claim(now=CLAIMED, queues=["here"], alone=True)[0]


def _deadly(bench: Bench) -> JobRecord:
    record = bench.running()[0]
    for _ in range(2):
        _rescued(bench, record, Trace.STARTED)
        bench.register("w1")
        (record,) = bench.claim(queues=["here"], alone=True)
    return record


def _succeeded(bench: Bench) -> JobRecord:
    record = bench.running()[0]
    bench.settle(record, Succeeded(keep=True, result="[1]"), now=ENDED)
    return bench.look(record.id)


def _failed(bench: Bench) -> JobRecord:
    record = bench.running()[0]
    bench.settle(record, Failed(BOOM), now=ENDED)
    return bench.look(record.id)


def _exhausted(bench: Bench) -> JobRecord:
    record = bench.running(max_attempts=2)[0]
    bench.settle(record, Retried(0, BOOM), now=ENDED)
    (record,) = bench.claim(now=at(30), queues=["here"])
    bench.settle(record, Failed(BOOM), now=at(40))
    return bench.look(record.id)


def _condemned(bench: Bench) -> JobRecord:
    record = _rescued(bench, _deadly(bench), Trace.STARTED)
    bench.register("w1")
    return record


def _cancelled(bench: Bench) -> JobRecord:
    record = bench.ready()[0]
    bench.adapter.cancel([record], now=ENDED)
    return bench.look(record.id)


def _rescued(bench: Bench, record: JobRecord, trace: Trace) -> JobRecord:
    bench.adapter.rescue("w1", notes={(record.id, record.lock_token): trace}, now=ENDED)
    return bench.look(record.id)


_DIED_ONCE = {"deaths": 1, "alone": True, "last_error": KILLED}
_FAILED = {"state": JobState.FAILED, "failed_at": ENDED, "finished_at": ENDED}

STANDINGS = {
    "scheduled": Standing(_scheduled, {"state": JobState.SCHEDULED, "run_at": at(3600)}),
    "due": Standing(_due, {"state": JobState.SCHEDULED, "run_at": at(50)}),
    "ready": Standing(_ready, {}),
    "set apart": Standing(_set_apart, {"attempts": 1, "lock_token": 1} | _DIED_ONCE, (line(KILLED),)),
    "running": Standing(_running, LOCKED),
    "on its last try": Standing(_on_its_last_try, LOCKED | {"max_attempts": 1}),
    "marked": Standing(_marked, LOCKED | {"started_at": ENDED}),
    "worn": Standing(
        _worn,
        LOCKED
        | _DIED_ONCE
        | {"lock_token": 4, "last_error": UNKNOWN_CLASS, "unknown_since": at(11.5), "run_at": at(12.5)},
        (line(KILLED),),
    ),
    "deadly": Standing(
        _deadly,
        LOCKED | _DIED_ONCE | {"attempts": 3, "lock_token": 3, "deaths": 2},
        (line(KILLED), line(KILLED, attempt=2)),
    ),
    "succeeded": Standing(
        _succeeded,
        {"state": JobState.SUCCEEDED, "attempts": 1, "lock_token": 1, "finished_at": ENDED, "result": "[1]"},
    ),
    "failed": Standing(
        _failed,
        _FAILED | {"attempts": 1, "lock_token": 1, "last_error": BOOM.error},
        (line(BOOM.error, BOOM.traceback),),
    ),
    "exhausted": Standing(
        _exhausted,
        {
            "state": JobState.FAILED,
            "attempts": 2,
            "max_attempts": 2,
            "lock_token": 2,
            "run_at": ENDED,
            "last_error": BOOM.error,
            "failed_at": at(40),
            "finished_at": at(40),
        },
        (
            line(BOOM.error, BOOM.traceback),
            line(BOOM.error, BOOM.traceback, attempt=2, started_at=at(30), finished_at=at(40)),
        ),
    ),
    "condemned": Standing(
        _condemned,
        _FAILED | _DIED_ONCE | {"attempts": 3, "lock_token": 3, "deaths": 3},
        (line(KILLED), line(KILLED, attempt=2), line(KILLED, attempt=3)),
    ),
    "begun once": Standing(
        _begun_once,
        _FAILED | {"attempts": 1, "lock_token": 1, "deaths": 1, "last_error": STARTED_ONCE, "started_at": ENDED},
        (line(STARTED_ONCE),),
    ),
    "cancelled": Standing(_cancelled, {"state": JobState.CANCELLED, "finished_at": ENDED}),
}
"""Every state that verbs lead to, and the variants of it that verbs must tell apart. Blocked is not reached yet."""

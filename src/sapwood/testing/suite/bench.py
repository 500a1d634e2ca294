"""What every case works with: an adapter, a few moments, jobs brought to where they are wanted, and checks.

Jobs get there by the verbs of the adapter alone. The moments have microseconds, so that a store that loses them shows.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct, structs

from sapwood.adapters.base import BaseAdapter, Settlement
from sapwood.lifecycle import Failure, Outcome
from sapwood.record import JobDraft, JobRecord, WorkerRecord


def at(seconds: float) -> datetime:
    """Return the moment so many seconds after the first."""
    return datetime(2026, 1, 31, 12, 0, 0, 123457, tzinfo=UTC) + timedelta(seconds=seconds)


STORED = at(0)
CLAIMED = at(10)
ENDED = at(20)
NOW = at(100)
"""The moment of the act that a case is about."""

BOOM = Failure("ValueError: boom ✗", 'Traceback (most recent call last):\n  File "jobs.py", line 1\n')


class Helpers(Struct, frozen=True, kw_only=True):
    """What some cases need beyond the contract. A case tells by ``requires`` which of these it cannot do without."""

    forget_worker: Callable[[BaseAdapter, str], None] | None = None
    """Delete the row of a worker and nothing else, as if by accident."""


class Bench:
    """An adapter under test and the ways to fill it."""

    def __init__(self, adapter: BaseAdapter, helpers: Helpers) -> None:
        self.adapter = adapter
        self.helpers = helpers

    def enqueue(self, *drafts: JobDraft, now: datetime | None = STORED) -> list[JobRecord]:
        """Store drafts and return the records."""
        return [self.look(job_id) for job_id in self.adapter.enqueue(drafts, now=now)]

    def ready(self, count: int = 1, **options: Any) -> list[JobRecord]:
        """Store jobs that may be claimed now."""
        return self.enqueue(*(draft(**options) for _ in range(count)))

    def register(self, *names: str) -> None:
        """Make workers known that are not."""
        known = {record.id for record in self.adapter.workers()}
        for name in names:
            if name not in known:
                self.adapter.register(worker(name), now=STORED)

    def claim(self, worker: str = "w1", *, limit: int = 1, now: datetime = CLAIMED, **options: Any) -> list[JobRecord]:
        """Claim for a worker that is known."""
        return list(self.adapter.claim(worker, limit=limit, now=now, **options).claimed)

    def running(self, count: int = 1, worker: str = "w1", **options: Any) -> list[JobRecord]:
        """Return jobs that run under a worker, which is made known."""
        self.register(worker)
        stored = self.ready(count, **options)
        claimed = self.claim(worker, limit=count, queues=[stored[0].queue])
        same([record.id for record in claimed], [record.id for record in stored], "the jobs set up to run")
        return claimed

    def settle(self, record: JobRecord, outcome: Outcome, *, worker: str = "w1", now: datetime = NOW) -> frozenset[int]:
        """Write one outcome."""
        return self.adapter.settle(worker, [Settlement(record, outcome)], now=now)

    def look(self, id: int) -> JobRecord:
        """Return a job that must be there."""
        record = self.adapter.get(id)
        if record is None:
            raise AssertionError(f"job {id} is gone")
        return record

    def everything(self) -> Sequence[JobRecord]:
        """Return all jobs."""
        return list(self.adapter.jobs(limit=1_000_000))

    def helper(self, name: str) -> Callable[..., Any]:
        """Return a helper that the case requires."""
        found: Callable[..., Any] | None = getattr(self.helpers, name)
        if found is None:
            raise LookupError(f"this case requires the helper {name}")
        return found


def draft(**options: Any) -> JobDraft:
    """Return a draft in the queue ``here``."""
    return JobDraft(**{"job": "shop.jobs:Resize", "args": '{"photo_id": 1}', "queue": "here"} | options)


def worker(id: str, **options: Any) -> WorkerRecord:
    """Return the record of a worker that is to be registered."""
    fields: dict[str, Any] = {"host": "host", "pid": 42, "queues": None, "concurrency": 5, "release": "1.0"}
    return WorkerRecord(**fields | options | {"id": id})


def ids(records: Sequence[JobRecord]) -> list[int]:
    """Return the ids of records, in their order."""
    return [record.id for record in records]


def same(actual: object, expected: object, about: str) -> None:
    """Fail, telling the difference, unless the two are equal."""
    if actual == expected:
        return
    if isinstance(actual, Struct) and type(actual) is type(expected):
        was, wanted = structs.asdict(actual), structs.asdict(expected)
        lines = [f"  {name}: {was[name]!r}, not {wanted[name]!r}" for name in was if was[name] != wanted[name]]
        raise AssertionError(f"{about}:\n" + "\n".join(lines))
    raise AssertionError(f"{about}:\n  {actual!r}, not\n  {expected!r}")


def holds(condition: object, about: str) -> None:
    """Fail with ``about`` unless the condition holds."""
    if not condition:
        raise AssertionError(about)

"""Jobs kept in the memory of one process, for tests and demonstrations. They are gone when it ends."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from heapq import heappop, heappush, merge
from itertools import count, islice, takewhile
from threading import RLock

from msgspec.structs import replace

from sapwood import lifecycle
from sapwood.adapters.base import BaseAdapter, Exchange, JobFilter, Settlement
from sapwood.errors import UnsupportedConnection
from sapwood.lifecycle import Edit, Trace
from sapwood.page import Claim
from sapwood.record import JobAttempt, JobDraft, JobRecord, JobState, WorkerRecord

_Line = tuple[JobState, str | int, bool]
"""Jobs that wait for the same thing: the ready ones of a queue, or the scheduled ones of a priority."""

_Place = tuple[int, datetime, int]
"""Where a job stands in its line: priority, ``run_at``, id."""


class MemoryAdapter(BaseAdapter):
    """Keeps jobs in dictionaries, under one lock.

    Waiting jobs stand in heaps, so that a claim costs the same however many wait. A job that moves on leaves its place
    in the heap behind; the place is dropped when it comes to the top.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._ids = count(1)
        self._rows: dict[int, JobRecord] = {}
        self._history: defaultdict[int, list[JobAttempt]] = defaultdict(list)
        self._workers: dict[str, WorkerRecord] = {}
        self._lines: defaultdict[_Line, list[_Place]] = defaultdict(list)
        self._listeners: tuple[Callable[[], None], ...] = ()
        self._became_ready = False

    # --- life -------------------------------------------------------------------------------------------------------

    @property
    def is_volatile(self) -> bool:
        """True."""
        return True

    def describe(self) -> str:
        """Return ``memory://``: there is one store per adapter."""
        return "memory://"

    def migrate(self) -> Sequence[str]:
        """Return no steps: there are no tables."""
        return ()

    def close(self) -> None:
        """Keep everything: there is nothing to let go of."""

    # --- the application --------------------------------------------------------------------------------------------

    def enqueue(
        self, drafts: Sequence[JobDraft], *, connection: object | None = None, now: datetime | None = None
    ) -> Sequence[int]:
        """Store ``drafts`` and return their ids in the same order."""
        if connection is not None:
            raise UnsupportedConnection(
                f"a job kept in memory cannot join a {type(connection).__name__}",
                why="memory is no part of the transaction, and would keep the job when that is rolled back",
                mend="keep the job in that database with SQLAlchemyAdapter, or enqueue it without a connection",
            )
        with self._transaction(now) as moment:
            records = [lifecycle.drafted(draft, id=next(self._ids), now=moment) for draft in drafts]
            for record in records:
                self._write(record)
        return [record.id for record in records]

    # --- a worker's life --------------------------------------------------------------------------------------------

    def register(self, worker: WorkerRecord, *, now: datetime | None = None) -> None:
        """Make the worker known."""
        with self._transaction(now) as moment:
            self._workers[worker.id] = replace(worker, beat_at=moment, started_at=moment)

    def beat(self, workers: Collection[str], *, now: datetime | None = None) -> frozenset[str]:
        """Raise the beat of workers by one; return those that are known."""
        with self._transaction(now) as moment:
            known = [self._workers[worker] for worker in workers if worker in self._workers]
            for worker in known:
                self._workers[worker.id] = replace(worker, beat=worker.beat + 1, beat_at=moment)
            return frozenset(worker.id for worker in known)

    def unregister(self, worker: str, *, now: datetime | None = None) -> Sequence[JobRecord]:
        """Forget a worker that ends in good order; return what was released."""
        with self._transaction(now) as moment:
            known = self._workers.pop(worker, None)
            # Without its row it was declared dead: its jobs are for the rescuer.
            return self._release(worker, (), moment) if known else ()

    def ready_queues(self, *, alone: bool = False) -> Collection[str]:
        """Return the queues that have ready jobs."""
        with self._lock:
            lines = [line for line in list(self._lines) if line[0] is JobState.READY and line[2] == alone]
            return [str(line[1]) for line in lines if any(True for _ in islice(self._waiting(line), 1))]

    # --- the way of a job -------------------------------------------------------------------------------------------

    def claim(
        self,
        worker: str,
        *,
        queues: Sequence[str] | None = None,
        limit: int,
        alone: bool = False,
        now: datetime | None = None,
    ) -> Exchange:
        """Take up to ``limit`` ready jobs for ``worker``, in the order priority, run_at, id."""
        return self.exchange(worker, (), queues=queues, limit=limit, alone=alone, now=now)

    def mark(self, worker: str, record: JobRecord, *, now: datetime | None = None) -> bool:
        """Note that the one run of a job begins."""
        with self._transaction(now) as moment:
            begun = lifecycle.marked(self._rows[record.id], now=moment) if self._holds(worker, record) else None
            if begun is not None:
                self._write(begun)
            return begun is not None

    def settle(self, worker: str, settlements: Sequence[Settlement], *, now: datetime | None = None) -> frozenset[int]:
        """Write the outcomes of jobs that run under ``worker``; return the ids that were written."""
        with self._transaction(now) as moment:
            return self._settle(worker, settlements, moment)

    def exchange(
        self,
        worker: str,
        settlements: Sequence[Settlement],
        *,
        queues: Sequence[str] | None = None,
        limit: int,
        alone: bool = False,
        now: datetime | None = None,
    ) -> Exchange:
        """Settle, then claim, under one lock."""
        with self._transaction(now) as moment:
            written = self._settle(worker, settlements, moment)
            if not self._guard(worker):
                return Exchange(settled=written, claimed=(), alive=False)
            taken = []
            for record in islice(self._candidates(queues, alone=alone), limit):
                taken.append(lifecycle.claimed(record, worker=worker, now=moment))
                self._write(taken[-1])
            return Exchange(settled=written, claimed=taken, alive=True)

    def promote(self, *, limit: int = 1000, now: datetime | None = None) -> int:
        """Make up to ``limit`` due jobs ready, urgent first; return how many."""
        with self._transaction(now) as moment:
            due = (
                takewhile(lambda record: record.run_at <= moment, self._waiting(line))
                for line in list(self._lines)
                if line[0] is JobState.SCHEDULED
            )
            promotions = 0
            for record in islice(merge(*due, key=self._place), limit):
                self._write(lifecycle.promoted(record))
                promotions += 1
            return promotions

    def release(self, worker: str, *, held: Collection[Claim] = (), now: datetime | None = None) -> Sequence[JobRecord]:
        """Give back every job that runs under ``worker`` except the claims it holds; return what was released."""
        with self._transaction(now) as moment:
            return self._release(worker, held, moment)

    # --- the dead ---------------------------------------------------------------------------------------------------

    def rescue(
        self,
        worker: str,
        *,
        beat: int | None = None,
        notes: Mapping[Claim, Trace] | None = None,
        now: datetime | None = None,
    ) -> Sequence[JobRecord] | None:
        """Take back the jobs of a worker that is proven dead; return them as they now are."""
        with self._transaction(now) as moment:
            known = self._workers.get(worker)
            if known is None or beat not in {None, known.beat}:
                return None
            del self._workers[worker]
            return self._take_back(self._running(worker), notes, moment)

    def sweep(self, *, now: datetime | None = None) -> Sequence[JobRecord]:
        """Take back jobs that run under an id without a worker row; return them as they now are."""
        with self._transaction(now) as moment:
            running = [record for record in self._rows.values() if record.state is JobState.RUNNING]
            orphaned = [record for record in running if record.locked_by not in self._workers]
            return self._take_back(orphaned, None, moment)

    # --- operators --------------------------------------------------------------------------------------------------

    def get(self, id: int) -> JobRecord | None:
        """Return the job, or None."""
        with self._lock:
            return self._rows.get(id)

    def jobs(self, filter: JobFilter | None = None, *, after: int = 0, limit: int = 100) -> Sequence[JobRecord]:
        """Return up to ``limit`` jobs with an id above ``after``, by id."""
        with self._lock:
            # Rows were added with rising ids, and a dictionary remembers the order.
            return list(islice((row for row in self._matching(filter) if row.id > after), limit))

    def attempts(self, id: int) -> Sequence[JobAttempt]:
        """Return the failed tries of a job, oldest first."""
        with self._lock:
            return tuple(self._history.get(id, ()))

    def counts(self) -> Mapping[tuple[str, JobState], int]:
        """Return how many jobs there are per queue and state."""
        with self._lock:
            return Counter((record.queue, record.state) for record in self._rows.values())

    def next_run_at(self) -> datetime | None:
        """Return the earliest ``run_at`` of a scheduled job, None where there is none."""
        with self._lock:
            lines = [line for line in self._lines if line[0] is JobState.SCHEDULED]
            heads = (next(self._waiting(line), None) for line in lines)
            return min((head.run_at for head in heads if head is not None), default=None)

    def workers(self) -> Sequence[WorkerRecord]:
        """Return the workers that are known."""
        with self._lock:
            return list(self._workers.values())

    def retry(self, seen: Sequence[JobRecord], *, now: datetime | None = None) -> frozenset[int]:
        """Make failed, cancelled or scheduled jobs ready now, with at least one more try; return the ids changed."""
        with self._transaction(now) as moment:
            return self._change(seen, lambda record: lifecycle.retried(record, now=moment))

    def cancel(self, seen: Sequence[JobRecord], *, now: datetime | None = None) -> frozenset[int]:
        """Cancel jobs that wait; return the ids changed."""
        with self._transaction(now) as moment:
            return self._change(seen, lambda record: lifecycle.cancelled(record, now=moment))

    def edit(self, seen: Sequence[JobRecord], edit: Edit, *, now: datetime | None = None) -> frozenset[int]:
        """Change jobs that wait; return the ids changed."""
        with self._transaction(now) as moment:
            return self._change(seen, lambda record: lifecycle.edited(record, edit, now=moment))

    def delete(self, seen: Sequence[JobRecord]) -> frozenset[int]:
        """Delete jobs that do not run, with their history; return the ids deleted."""
        with self._transaction():
            idle = [record.id for record in self._unchanged(seen) if record.state is not JobState.RUNNING]
            for job_id in idle:
                self._remove(job_id)
            return frozenset(idle)

    def clear(self, filter: JobFilter | None = None, *, running: bool = False) -> int:
        """Delete all jobs that match, running ones only with ``running``; return how many."""
        with self._transaction():
            matching = [row.id for row in self._matching(filter) if running or row.state is not JobState.RUNNING]
            for job_id in matching:
                self._remove(job_id)
            return len(matching)

    # --- waking up --------------------------------------------------------------------------------------------------

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` in the thread that made a job ready, once its verb is done; return a function that ends it."""

        def call() -> None:
            wake()

        with self._lock:
            self._listeners = (*self._listeners, call)

        def end() -> None:
            with self._lock:
                self._listeners = tuple(listener for listener in self._listeners if listener is not call)

        return end

    # --- within -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self, now: datetime | None = None) -> Iterator[datetime]:
        """Hold the lock and tell the time; wake the listeners when the lock is free, so that they may use any verb."""
        with self._lock:
            self._became_ready = False
            yield now or datetime.now(UTC)
            listeners = self._listeners if self._became_ready else ()
        for wake in listeners:
            wake()

    def _guard(self, worker: str) -> bool:
        """Tell whether ``worker`` may claim."""
        return worker in self._workers

    def _holds(self, worker: str, seen: JobRecord) -> bool:
        """Tell whether the claim that ``worker`` saw is still the one the row shows."""
        row = self._rows.get(seen.id)
        return (
            row is not None
            and row.lock_token == seen.lock_token
            and row.state is JobState.RUNNING
            and row.locked_by == worker
        )

    def _settle(self, worker: str, settlements: Iterable[Settlement], now: datetime) -> frozenset[int]:
        held: dict[int, Settlement] = {}
        for settlement in settlements:
            if self._holds(worker, settlement.record):
                held.setdefault(settlement.record.id, settlement)
        # What the worker knows of the run decides, as in a database: a mark whose answer was lost is taken back.
        rows = [(settlement.record, settlement.outcome) for settlement in held.values()]
        left = [lifecycle.settled(row, outcome, now=now) for row, outcome in rows]
        for (row, outcome), record in zip(rows, left, strict=True):
            self._note(lifecycle.attempted(row, outcome, now=now))
            if record is None:
                self._remove(row.id)
            else:
                self._write(record)
        return frozenset(held)

    def _release(self, worker: str, held: Collection[Claim], now: datetime) -> Sequence[JobRecord]:
        claims = frozenset(held)
        unheld = [record for record in self._running(worker) if record.claim not in claims]
        released = [
            left for record in unheld if (left := lifecycle.settled(record, lifecycle.Released(), now=now)) is not None
        ]
        for record in unheld:
            # A marked one is failed, and tells why.
            self._note(lifecycle.attempted(record, lifecycle.Released(), now=now))
        for record in released:
            self._write(record)
        return released

    def _take_back(
        self, records: Iterable[JobRecord], notes: Mapping[Claim, Trace] | None, now: datetime
    ) -> Sequence[JobRecord]:
        taken_back = []
        for record in records:
            claim = record.claim
            trace = Trace.UNKNOWN if notes is None else notes.get(claim, Trace.NOT_STARTED)
            self._note(lifecycle.lost(record, trace, now=now))
            taken_back.append(lifecycle.rescued(record, trace, now=now))
            self._write(taken_back[-1])
        return taken_back

    def _change(self, seen: Iterable[JobRecord], transition: Callable[[JobRecord], JobRecord | None]) -> frozenset[int]:
        changed = [left for record in self._unchanged(seen) if (left := transition(record)) is not None]
        for record in changed:
            self._write(record)
        return frozenset(record.id for record in changed)

    def _unchanged(self, seen: Iterable[JobRecord]) -> Iterator[JobRecord]:
        """Return the rows that still have the state and token that the caller saw."""
        for record in seen:
            row = self._rows.get(record.id)
            if row is not None and (row.state, row.lock_token) == (record.state, record.lock_token):
                yield row

    def _running(self, worker: str) -> Sequence[JobRecord]:
        return [row for row in self._rows.values() if row.state is JobState.RUNNING and row.locked_by == worker]

    def _matching(self, filter: JobFilter | None) -> Iterator[JobRecord]:
        wanted = filter or JobFilter()
        for row in self._rows.values():
            fields = ((row.state, wanted.states), (row.queue, wanted.queues), (row.job, wanted.jobs))
            if all(allowed is None or value in allowed for value, allowed in fields):
                yield row

    def _candidates(self, queues: Collection[str] | None, *, alone: bool) -> Iterator[JobRecord]:
        """Return the jobs to claim, in order. Whoever asks for the next has claimed the last."""
        lines = [
            line
            for line in list(self._lines)
            if line[0] is JobState.READY and line[2] == alone and (queues is None or line[1] in queues)
        ]
        return merge(*(self._waiting(line) for line in lines), key=self._place)

    def _waiting(self, line: _Line) -> Iterator[JobRecord]:
        """Return the jobs of a line, in order. Whoever asks for the next has moved the last out of the line."""
        places = self._lines[line]
        while places:
            row = self._rows.get(places[0][-1])
            if row is not None and self._line(row) == line and self._place(row) == places[0]:
                yield row
            heappop(places)

    def _line(self, record: JobRecord) -> _Line | None:
        match record.state:
            case JobState.READY:
                return record.state, record.queue, record.alone
            case JobState.SCHEDULED:
                return record.state, record.priority, False
            case _:
                return None

    def _place(self, record: JobRecord) -> _Place:
        return record.priority, record.run_at, record.id

    def _write(self, record: JobRecord) -> None:
        self._rows[record.id] = record
        self._became_ready |= record.state is JobState.READY
        line = self._line(record)
        if line is not None:
            heappush(self._lines[line], self._place(record))

    def _remove(self, id: int) -> None:
        self._rows.pop(id, None)
        self._history.pop(id, None)

    def _note(self, attempt: JobAttempt | None) -> None:
        if attempt is not None:
            self._history[attempt.job_id].append(attempt)

"""Adapters with one rule broken, each in a way that a database could break it. Whatever tests adapters must find them.

A mutant is a context manager that is given a class of adapter and yields the class to be tested instead. Most are made
of public verbs alone, so that any adapter can be mutated.
"""

from contextlib import contextmanager

import pytest
from msgspec.structs import replace

from sapwood import lifecycle
from sapwood.adapters.base import Exchange
from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
from sapwood.lifecycle import Succeeded, Trace
from sapwood.record import JobState

MUTANTS = {}
"""By name: what is broken."""


def _mutant(make):
    """Add a function that makes a mutant class of a class."""

    @contextmanager
    def mutated(kind):
        yield make(kind)

    MUTANTS[make.__name__.replace("_", " ")] = mutated
    return make


def _mutant_of_the_lifecycle(make):
    """Add a function that returns functions to be used in place of those of the lifecycle."""

    @contextmanager
    def mutated(kind):
        with pytest.MonkeyPatch.context() as patch:
            for name, replacement in make().items():
                patch.setattr(lifecycle, name, replacement)
            yield _rewritten(kind, IN_SQL.get(make.__name__, ()))

    MUTANTS[make.__name__.replace("_", " ")] = mutated
    return make


IN_SQL = {
    "tokens_that_come_back": [("lock_token = lock_token + 1", "lock_token = attempts + 1")],
    "attempts_counted_late": [("attempts = attempts + 1", "attempts = attempts + 0")],
}
"""The same changes in the text of a dialect's own statement, which knows nothing of the lifecycle's functions."""


def _rewritten(kind, changes):
    if not changes or not issubclass(kind, SQLAlchemyAdapter):
        return kind

    class Mutant(kind):
        def mutate(self):
            _rewrite(self._dialect, *changes)

    return Mutant


# --- fences -----------------------------------------------------------------------------------------------------------


def _with_fence(kind, settle_one):
    """Return a class that settles one by one, as ``settle_one`` does it."""

    class Mutant(kind):
        def settle(self, worker, settlements, *, now=None):
            adapter = super()
            written = [settle_one(self, adapter, worker, settlement, now) for settlement in settlements]
            return frozenset().union(*written)

        def exchange(self, worker, settlements, **options):
            written = self.settle(worker, settlements, now=options.get("now"))
            answer = super().exchange(worker, (), **options)
            return Exchange(settled=written, claimed=answer.claimed, alive=answer.alive)

    return Mutant


@_mutant
def fence_without_state(kind):
    def settle_one(self, adapter, worker, settlement, now):
        row = self.get(settlement.record.id)
        idle = row is not None and row.state is not JobState.RUNNING and row.lock_token == settlement.record.lock_token
        if idle and settlement.outcome == Succeeded():
            return adapter.delete([row])
        return adapter.settle(worker, [settlement], now=now)

    return _with_fence(kind, settle_one)


@_mutant
def fence_without_owner(kind):
    def settle_one(self, adapter, worker, settlement, now):
        row = self.get(settlement.record.id)
        owner = row.locked_by if row is not None and row.locked_by else worker
        return adapter.settle(owner, [settlement], now=now)

    return _with_fence(kind, settle_one)


@_mutant
def fence_without_token(kind):
    def settle_one(self, adapter, worker, settlement, now):
        row = self.get(settlement.record.id)
        current = row if row is not None and row.locked_by == worker else settlement.record
        return adapter.settle(worker, [replace(settlement, record=current)], now=now)

    return _with_fence(kind, settle_one)


@_mutant
def refused_outcomes_reported_as_written(kind):
    class Mutant(kind):
        def settle(self, worker, settlements, *, now=None):
            super().settle(worker, settlements, now=now)
            return frozenset(settlement.record.id for settlement in settlements)

    return Mutant


@_mutant
def operators_act_on_what_they_did_not_see(kind):
    class Mutant(kind):
        def cancel(self, seen, *, now=None):
            return super().cancel(self._current(seen), now=now)

        def retry(self, seen, *, now=None):
            return super().retry(self._current(seen), now=now)

        def _current(self, seen):
            return [row for row in (self.get(record.id) for record in seen) if row is not None]

    return Mutant


def _rewrite(dialect, *changes):
    """Change the text of a dialect's own statement, where it has one."""
    if dialect.exchanges:
        original = dialect._exchange_sql

        def rewritten(*arguments):
            text = original(*arguments)
            for before, after in changes:
                assert before in text
                text = text.replace(before, after)
            return text

        dialect._exchange_sql = rewritten


@_mutant
def marks_of_others(kind):
    """Let anybody mark a job that runs, by whatever claim."""

    class Mutant(kind):
        def mark(self, worker, record, *, now=None):
            row = self.get(record.id)
            if row is None or row.locked_by is None:
                return False
            return super().mark(row.locked_by, row, now=now)

    return Mutant


# --- claims -----------------------------------------------------------------------------------------------------------


@_mutant
def guard_off(kind):
    class Mutant(kind):
        def _guard(self, *_, **__):
            return True

        def mutate(self):
            _rewrite(self._dialect, (" AND EXISTS (SELECT 1 FROM me)", ""))

    return Mutant


@_mutant
def order_broken(kind):
    """Forget that of two equally urgent jobs the older goes first."""
    if issubclass(kind, SQLAlchemyAdapter):

        class Mutant(kind):
            def mutate(self):
                self._dialect.order = ("priority", "id")

    else:

        class Mutant(kind):
            def _place(self, record):
                return record.priority, record.id

    return Mutant


@_mutant
def queues_served_one_after_the_other(kind):
    class Mutant(kind):
        def exchange(self, worker, settlements, *, queues=None, limit, **options):
            answer = super().exchange(worker, settlements, queues=["-"], limit=0, **options)
            claimed = []
            for queue in sorted({queue for queue, _ in self.counts()} if queues is None else queues):
                more = super().exchange(worker, (), queues=[queue], limit=limit - len(claimed), **options)
                claimed += more.claimed
            return Exchange(settled=answer.settled, claimed=claimed, alive=answer.alive)

    return Mutant


@_mutant
def jobs_set_apart_claimed_among_others(kind):
    class Mutant(kind):
        def exchange(self, worker, settlements, *, limit, alone=False, **options):
            answer = super().exchange(worker, settlements, limit=limit, alone=alone, **options)
            left = limit - len(answer.claimed)
            more = super().exchange(worker, (), limit=left, alone=not alone, **options).claimed
            return Exchange(settled=answer.settled, claimed=[*answer.claimed, *more], alive=answer.alive)

    return Mutant


@_mutant
def promotion_skipped(kind):
    class Mutant(kind):
        def promote(self, *, limit=1000, now=None):
            return 0

    return Mutant


@_mutant
def promotion_one_short(kind):
    class Mutant(kind):
        def promote(self, *, limit=1000, now=None):
            return super().promote(limit=max(limit - 1, 1), now=now)

    return Mutant


@_mutant
def unknown_result_ignored(kind):
    class Mutant(kind):
        def release(self, worker, *, held=(), now=None):
            return ()

    return Mutant


# --- the dead ---------------------------------------------------------------------------------------------------------


@_mutant
def sweep_off(kind):
    class Mutant(kind):
        def sweep(self, *, now=None):
            return ()

    return Mutant


@_mutant
def rescue_of_the_living(kind):
    class Mutant(kind):
        def rescue(self, worker, *, beat=None, notes=None, now=None):
            return super().rescue(worker, notes=notes, now=now)

    return Mutant


@_mutant
def rescue_without_notes(kind):
    class Mutant(kind):
        def rescue(self, worker, *, beat=None, notes=None, now=None):
            return super().rescue(worker, beat=beat, now=now)

    return Mutant


# --- what a transition means ------------------------------------------------------------------------------------------


@_mutant_of_the_lifecycle
def attempts_counted_late():
    claimed, settled, rescued = lifecycle.claimed, lifecycle.settled, lifecycle.rescued

    def counted(record):
        return replace(record, attempts=record.attempts + 1)

    def claimed_uncounted(record, **options):
        return replace(claimed(record, **options), attempts=record.attempts)

    def rescued_uncounted(record, trace, *, now):
        left = rescued(counted(record), trace, now=now)
        return replace(left, attempts=record.attempts) if trace is Trace.STARTED else left

    return {
        "claimed": claimed_uncounted,
        "settled": lambda record, outcome, *, now: settled(counted(record), outcome, now=now),
        "rescued": rescued_uncounted,
    }


@_mutant_of_the_lifecycle
def tokens_that_come_back():
    claimed = lifecycle.claimed

    def claimed_by_attempts(record, **options):
        return replace(claimed(record, **options), lock_token=record.attempts + 1)

    return {"claimed": claimed_by_attempts}


@_mutant_of_the_lifecycle
def marked_jobs_given_back():
    settled, rescued = lifecycle.settled, lifecycle.rescued

    def unmarked(record):
        return replace(record, started_at=None)

    return {
        "settled": lambda record, outcome, *, now: settled(unmarked(record), outcome, now=now),
        "rescued": lambda record, trace, *, now: rescued(unmarked(record), trace, now=now),
    }


@_mutant_of_the_lifecycle
def deaths_without_end():
    return {"MAX_DEATHS": 1_000_000}


@_mutant_of_the_lifecycle
def history_not_written():
    return {"attempted": lambda record, outcome, *, now: None, "lost": lambda record, trace, *, now: None}

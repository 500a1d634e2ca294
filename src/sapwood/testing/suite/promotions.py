# ruff: noqa: D103, PLR2004 - the name of a case is its sentence, and its numbers are the example
"""How what is due becomes ready."""

from datetime import datetime

from sapwood.record import JobDraft, JobState
from sapwood.testing.suite.bench import CLAIMED, NOW, Bench, at, draft, ids, same
from sapwood.testing.suite.case import Chapter

chapter = Chapter("promotions")


@chapter.table({"at its moment": (NOW, 1), "a microsecond before": (at(100.000001), 0), "long after": (at(1), 1)})
def a_job_is_due(bench: Bench, run_at: datetime, promotions: int) -> None:
    bench.enqueue(draft(run_at=run_at))
    same(bench.adapter.promote(now=NOW), promotions, "how many were promoted")


@chapter.case
def a_due_job_is_not_claimed_before_it_is_promoted(bench: Bench) -> None:
    (due,) = bench.enqueue(draft(wait=50))
    bench.register("w1")
    same(bench.claim(now=NOW), [], "the jobs claimed before")
    bench.adapter.promote(now=NOW)
    same(ids(bench.claim(now=NOW)), [due.id], "the jobs claimed after")


DUE = [(50, 9), (10, 50), (50, 8), (1, 90), (10, 40), (50, 8), (1, 200), (100, 5)]
"""Priority and ``run_at`` in seconds; one is still to come."""


@chapter.table({f"{limit} at once": (limit,) for limit in (1, 2, 5, 7, 8)})
def what_is_due_is_promoted_urgent_first(bench: Bench, limit: int) -> None:
    stored = bench.enqueue(*(draft(priority=priority, run_at=at(seconds)) for priority, seconds in DUE))
    order = sorted((n for n in range(len(DUE)) if DUE[n][1] <= 100), key=lambda n: (*DUE[n], n))
    expected = {stored[n].id for n in order[:limit]}
    same(bench.adapter.promote(limit=limit, now=NOW), len(expected), "how many were promoted")
    ready = {record.id for record in bench.everything() if record.state is JobState.READY}
    same(ready, expected, "the jobs that are ready")


@chapter.case
def promotion_is_repeated_until_it_returns_less(bench: Bench) -> None:
    bench.enqueue(*(draft(wait=50) for _ in range(5)))
    same([bench.adapter.promote(limit=2, now=NOW) for _ in range(4)], [2, 2, 1, 0], "how many were promoted each time")


@chapter.case
def a_thousand_are_promoted_when_no_limit_is_named(bench: Bench) -> None:
    bench.enqueue(*(draft(wait=50) for _ in range(1001)))
    same([bench.adapter.promote(now=NOW) for _ in range(2)], [1000, 1], "how many were promoted each time")


@chapter.case
def a_promoted_job_stands_where_its_run_at_puts_it(bench: Bench) -> None:
    drafts: list[JobDraft] = [draft(run_at=at(-5)), draft(wait=5), draft(run_at=at(-9))]
    first, promoted, second = bench.enqueue(*drafts)
    bench.adapter.promote(now=CLAIMED)
    (late,) = bench.enqueue(draft(), now=at(6))
    bench.register("w1")
    same(ids(bench.claim(limit=9)), [second.id, first.id, promoted.id, late.id], "the jobs claimed")

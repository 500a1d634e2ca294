# ruff: noqa: D103 - the name of a case is its sentence, and its numbers are the example
"""Marks: a job that is to run at most once is begun at most once, whoever asks and whatever answer was lost."""

from collections.abc import Callable

from sapwood.lifecycle import Released, Trace
from sapwood.record import JobRecord, JobState
from sapwood.testing.suite.bench import CLAIMED, ENDED, NOW, Bench, ids, same
from sapwood.testing.suite.case import Chapter
from sapwood.testing.suite.fences import SITUATIONS

chapter = Chapter("marks")


@chapter.table({when: (happen,) for when, happen in SITUATIONS.items()})
def a_late_mark_is_refused(bench: Bench, happen: Callable[[Bench, JobRecord], None]) -> None:
    (record,) = bench.running()
    happen(bench, record)
    before = bench.everything()
    same(bench.adapter.mark("w1", record, now=NOW), False, "the answer")
    same(bench.everything(), before, "the jobs")


@chapter.case
def another_worker_cannot_mark(bench: Bench) -> None:
    (record,) = bench.running()
    bench.register("w2")
    same(bench.adapter.mark("w2", record, now=NOW), False, "the answer")
    same(bench.look(record.id), record, "the job")


@chapter.case
def a_job_is_marked_once(bench: Bench) -> None:
    (record,) = bench.running()
    same([bench.adapter.mark("w1", record, now=now) for now in (ENDED, NOW)], [True, False], "the answers")
    same(bench.look(record.id).started_at, ENDED, "when it began")


@chapter.case
def a_mark_without_a_moment_is_by_the_clock_of_the_store(bench: Bench) -> None:
    bench.register("w1")
    bench.ready()
    (record,) = bench.adapter.claim("w1", limit=1).claimed
    same(bench.adapter.mark("w1", record), True, "the answer")
    begun, claimed = bench.look(record.id).started_at, record.locked_at
    same(begun is not None and claimed is not None and begun >= claimed, True, "begun after the claim")


@chapter.case
def a_mark_whose_answer_was_lost_is_taken_back_by_the_outcome(bench: Bench) -> None:
    (record,) = bench.running()
    bench.adapter.mark("w1", record, now=ENDED)
    same(bench.settle(record, Released()), frozenset({record.id}), "what was written")
    (again,) = bench.claim(now=NOW)
    same((again.id, again.attempts, again.started_at), (record.id, 1, None), "the job claimed again")
    same(bench.adapter.mark("w1", again, now=NOW), True, "the mark of the next claim")


@chapter.case
def a_marked_job_of_a_dead_worker_does_not_run_again(bench: Bench) -> None:
    marked, unmarked = bench.running(2)
    bench.adapter.mark("w1", marked, now=ENDED)
    bench.adapter.rescue("w1", notes={marked.claim: Trace.STARTED}, now=NOW)
    bench.register("w1")
    same(ids(bench.claim(limit=9, now=NOW)), [unmarked.id], "the jobs claimed")
    failed = bench.look(marked.id)
    same((failed.state, failed.last_error), (JobState.FAILED, "started once, outcome unknown"), "what is left")
    same(bench.adapter.retry([failed], now=NOW), frozenset({marked.id}), "what an operator may do")
    (again,) = bench.claim(now=NOW)
    same((again.id, again.started_at), (marked.id, None), "the job claimed again")
    same(bench.adapter.mark("w1", again, now=NOW), True, "its mark")


@chapter.case
def a_mark_leaves_its_neighbours_alone(bench: Bench) -> None:
    first, second = bench.running(2)
    bench.adapter.mark("w1", first, now=CLAIMED)
    same(bench.look(second.id), second, "the neighbour")

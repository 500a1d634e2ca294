# ruff: noqa: D103 - the name of a case is its sentence, and its numbers are the example
"""What goes in comes out: enqueue, its ids, its moments and its texts."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from msgspec.structs import replace

from sapwood.adapters.base import JobFilter, Settlement
from sapwood.errors import UnsupportedConnection
from sapwood.lifecycle import Cancelled, Failed, Failure, Outcome, Succeeded
from sapwood.record import JobDraft, JobState
from sapwood.testing.suite.bench import BOOM, NOW, STORED, Bench, at, draft, holds, ids, same
from sapwood.testing.suite.case import Chapter
from sapwood.testing.suite.standings import stored

chapter = Chapter("storing")

TEXTS: Mapping[str, str] = {
    "nothing": "",
    "quotes": """'; DROP TABLE background_jobs; -- " ` \\ """,
    "placeholders": "%s %(id)s :id ? $1 {id} %",
    "letters of the world": "Grüße, Ελλάδα, 日本語, عربى, e\u0301",
    "faces": "🎉👩‍👩‍👧",
    "white space": " \t\r\n\u00a0\u2028 ",
    "control characters": "\x01\x1b[31m\x7f",
}


@chapter.table(
    {
        **{f"arguments with {name}": ({"args": f'{{"x": "{text}"}}'},) for name, text in TEXTS.items()},
        "arguments with an escaped NUL": ({"args": r'{"x": "\u0000"}'},),
        "arguments with an escaped lone surrogate": ({"args": r'{"x": "\ud800"}'},),
        "a megabyte of arguments": ({"args": f'{{"x": "{"y" * 1_048_000}"}}'},),
        "a queue in letters of the world": ({"queue": TEXTS["letters of the world"]},),
        "a queue with quotes": ({"queue": TEXTS["quotes"]},),
        "a queue with a long name": ({"queue": "q" * 128},),
        "a queue with a long name of faces": ({"queue": "🎉" * 128},),
        "a class in letters of the world": ({"job": "büro.jobs:Größe"},),
        "a class with a long name": ({"job": "j" * 255},),
        "a class with a long name of faces": ({"job": "🎉" * 255},),
        "the most urgent priority": ({"priority": 1},),
        "the least urgent priority": ({"priority": 100},),
        "a single try": ({"max_attempts": 1},),
        "a million tries": ({"max_attempts": 1_000_000},),
    }
)
def a_job_is_stored_as_it_was_drafted(bench: Bench, options: dict[str, Any]) -> None:
    (record,) = bench.enqueue(draft(**options))
    same(record, stored(record.id, options), "the job")


_FIVE_EAST = timezone(timedelta(hours=5, minutes=30))


@chapter.table(
    {
        "without a wait": ({}, STORED, JobState.READY),
        "with a wait": ({"wait": 3600}, at(3600), JobState.SCHEDULED),
        "with half a second to wait": ({"wait": 0.5}, at(0.5), JobState.SCHEDULED),
        "due now": ({"run_at": STORED}, STORED, JobState.READY),
        "due in a microsecond": ({"run_at": at(0.000001)}, at(0.000001), JobState.SCHEDULED),
        "due long ago": ({"run_at": at(-86_400 * 365)}, at(-86_400 * 365), JobState.READY),
        "due in the year 2999": (
            {"run_at": datetime(2999, 12, 31, 12, tzinfo=UTC)},
            datetime(2999, 12, 31, 12, tzinfo=UTC),
            JobState.SCHEDULED,
        ),
        "due by another time zone": (
            {"run_at": at(60).astimezone(_FIVE_EAST)},
            at(60),
            JobState.SCHEDULED,
        ),
        "with a moment and a wait": ({"run_at": at(5), "wait": 3600}, at(5), JobState.SCHEDULED),
    }
)
def a_job_starts_to_wait(bench: Bench, options: dict[str, Any], run_at: datetime, state: JobState) -> None:
    (record,) = bench.enqueue(draft(**options))
    same(record, stored(record.id, {"run_at": run_at, "state": state}), "the job")


@chapter.case
def a_draft_with_nothing_but_a_name_has_the_defaults(bench: Bench) -> None:
    (record,) = bench.enqueue(JobDraft(job="shop.jobs:Resize", args="{}"))
    same((record.queue, record.priority, record.max_attempts), ("default", 50, 24), "queue, priority, most attempts")


@chapter.table({f"a failure with {name}": (text,) for name, text in TEXTS.items() if text})
def an_error_is_kept_word_by_word(bench: Bench, text: str) -> None:
    (record,) = bench.running()
    bench.settle(record, Failed(Failure(text, text)))
    (attempt,) = bench.adapter.attempts(record.id)
    same((bench.look(record.id).last_error, attempt.error, attempt.traceback), (text, text, text), "the texts")


@chapter.case
def an_error_of_64_kilobytes_is_kept_whole(bench: Bench) -> None:
    (record,) = bench.running()
    long = Failure("e" * 65_536, "t" * 65_536)
    bench.settle(record, Failed(long))
    (attempt,) = bench.adapter.attempts(record.id)
    same(Failure(attempt.error, attempt.traceback), long, "the attempt")
    same(bench.look(record.id).last_error, long.error, "the last error")


@chapter.case
def a_failure_without_a_traceback_is_kept(bench: Bench) -> None:
    (record,) = bench.running()
    bench.settle(record, Failed(replace(BOOM, traceback=None)))
    same([one.traceback for one in bench.adapter.attempts(record.id)], [None], "the tracebacks")


@chapter.case
def a_reason_to_cancel_is_kept(bench: Bench) -> None:
    (record,) = bench.running()
    bench.settle(record, Cancelled(TEXTS["quotes"]))
    same(bench.look(record.id).last_error, TEXTS["quotes"], "the reason")


@chapter.table({"an object": ('{"größe": [1, null]}',), "null": ("null",), "nothing": (None,)})
def a_result_is_kept(bench: Bench, result: str | None) -> None:
    (record,) = bench.running()
    bench.settle(record, Succeeded(keep=True, result=result))
    same(bench.look(record.id).result, result, "the result")


# --- ids --------------------------------------------------------------------------------------------------------------


@chapter.case
def ids_come_in_the_order_of_the_drafts(bench: Bench) -> None:
    drafts = [draft(queue=f"q{n % 3}", priority=1 + n % 5, wait=n % 2, args=f'{{"n": {n}}}') for n in range(30)]
    given = bench.adapter.enqueue(drafts, now=STORED)
    same([bench.look(job_id).args for job_id in given], [one.args for one in drafts], "the jobs behind the ids")
    same(list(given), sorted(set(given)), "the ids")


@chapter.case
def later_jobs_have_greater_ids(bench: Bench) -> None:
    given = [*ids(bench.ready(3)), *ids(bench.ready(1)), *ids(bench.ready(2))]
    same(given, sorted(set(given)), "the ids")


@chapter.case
def no_drafts_make_no_jobs(bench: Bench) -> None:
    same(list(bench.adapter.enqueue([], now=STORED)), [], "the ids")
    same(bench.everything(), [], "the jobs")


@chapter.case
def five_thousand_drafts_are_stored_at_once(bench: Bench) -> None:
    given = bench.adapter.enqueue([draft(args=f'{{"n": {n}}}') for n in range(5000)], now=STORED)
    expected = [(job_id, f'{{"n": {n}}}') for n, job_id in enumerate(given)]
    same([(one.id, one.args) for one in bench.everything()], expected, "the jobs")


def _delete(bench: Bench) -> None:
    bench.adapter.delete(bench.everything())


def _clear(bench: Bench) -> None:
    bench.adapter.clear()


def _succeed(bench: Bench) -> None:
    bench.register("w1")
    claimed = bench.claim(limit=9)
    bench.adapter.settle("w1", [Settlement(one, Succeeded()) for one in claimed], now=NOW)


@chapter.table({"deleted": (_delete,), "cleared": (_clear,), "done": (_succeed,)})
def the_id_of_a_job_never_comes_back_once_it_is(bench: Bench, vanish: Any) -> None:
    last = ids(bench.ready(3))[-1]
    vanish(bench)
    same(bench.everything(), [], "the jobs left")
    holds(ids(bench.ready())[0] > last, "an id was given a second time")


# --- all or nothing ---------------------------------------------------------------------------------------------------


@chapter.case
def a_connection_that_cannot_be_joined_is_refused(bench: Bench) -> None:
    try:
        bench.adapter.enqueue([draft()], connection=object(), now=STORED)
    except UnsupportedConnection as error:
        holds(error.what and error.why and error.mend, "the error does not say what, why and how to mend it")
    else:
        raise AssertionError("a connection of no known kind was accepted")
    same(bench.everything(), [], "the jobs")


@chapter.case
def one_bad_draft_keeps_all_out(bench: Bench) -> None:
    naive = datetime(2026, 1, 31, 12)  # noqa: DTZ001 - the fault in question
    try:
        bench.adapter.enqueue([draft(), draft(run_at=naive), draft()], now=STORED)
    except Exception:  # noqa: BLE001 - how it fails is the adapter's own affair
        same(bench.everything(), [], "the jobs")
    else:
        raise AssertionError("a naive moment was accepted")


# --- the store's own clock --------------------------------------------------------------------------------------------


@chapter.case
def without_a_moment_the_clock_of_the_store_counts(bench: Bench) -> None:
    adapter = bench.adapter
    kept, failing = adapter.enqueue([draft(wait=-1), draft(wait=-1)])
    told = [bench.look(kept).created_at]
    bench.register("w1")
    adapter.beat(["w1"])
    told += [one.beat_at for one in adapter.workers() if one.beat_at]
    claimed = adapter.claim("w1", limit=2).claimed
    told += [one.locked_at for one in claimed if one.locked_at]
    outcomes: dict[int, Outcome] = {kept: Succeeded(keep=True), failing: Failed(BOOM)}
    adapter.settle("w1", [Settlement(one, outcomes[one.id]) for one in claimed])
    told += [one.finished_at for one in bench.everything() if one.finished_at]
    told += [one.finished_at for one in adapter.attempts(failing)]
    same(len(told), 7, "how many moments were told")
    # An hour forgives a server whose clock is a little off, and no mistake about time zones.
    off = [moment for moment in told if abs(datetime.now(UTC) - moment) > timedelta(minutes=29)]
    same(off, [], "moments that are not now")


@chapter.case
def without_a_moment_what_is_due_is_promoted(bench: Bench) -> None:
    past, future = bench.adapter.enqueue([draft(wait=60), draft(wait=10**9)], now=STORED)
    same(bench.adapter.promote(), 1, "how many were promoted")
    states = [bench.look(past).state, bench.look(future).state]
    same(states, [JobState.READY, JobState.SCHEDULED], "the states")


# --- the life of the store --------------------------------------------------------------------------------------------


@chapter.case
def a_second_migration_changes_nothing(bench: Bench) -> None:
    before = bench.ready(2)
    same(list(bench.adapter.migrate()), [], "the steps taken")
    same(bench.everything(), before, "the jobs")


@chapter.case
def a_verb_after_close_opens_the_store_again(bench: Bench) -> None:
    before = bench.ready(2)
    bench.adapter.close()
    bench.adapter.close()
    same(bench.everything(), before, "the jobs")


@chapter.case
def an_adapter_tells_where_its_jobs_are(bench: Bench) -> None:
    holds(bench.adapter.describe(), "describe() says nothing")


@chapter.case
def an_empty_store_answers_every_question(bench: Bench) -> None:
    adapter = bench.adapter
    answers = (adapter.get(1), list(adapter.jobs()), list(adapter.attempts(1)), dict(adapter.counts()))
    same(answers, (None, [], [], {}), "the job, jobs, attempts and counts")
    rest = (adapter.next_run_at(), list(adapter.workers()), adapter.clear(JobFilter()), adapter.promote(now=NOW))
    same(rest, (None, [], 0, 0), "the next moment, the workers, and how many were cleared and promoted")

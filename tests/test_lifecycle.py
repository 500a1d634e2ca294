"""The state machine by itself. What it means to a store is said by the conformance suite."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sapwood.lifecycle import (
    MAX_DEATHS,
    TIMED_OUT,
    Cancelled,
    Edit,
    Failed,
    Failure,
    Released,
    Retried,
    Snoozed,
    Succeeded,
    Trace,
    Unrecognised,
    attempted,
    cancelled,
    claimed,
    drafted,
    edited,
    lost,
    promoted,
    rescued,
    retried,
    settled,
)
from sapwood.record import JobDraft, JobRecord, JobState

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
BOOM = Failure("ValueError: boom", "Traceback")

waits = st.floats(0, 10**6)
outcomes = st.one_of(
    st.builds(Succeeded, keep=st.booleans(), result=st.none() | st.text()),
    st.builds(Retried, waits, st.just(BOOM)),
    st.just(Failed(BOOM)),
    st.builds(Snoozed, waits),
    st.builds(Unrecognised, waits, st.just(BOOM)),
    st.builds(Cancelled, st.text()),
    st.just(Released()),
)
moments = st.integers(0, 10**9).map(lambda seconds: NOW + timedelta(seconds=seconds))
waiting = st.builds(
    JobRecord,
    id=st.integers(1, 2**62),
    state=st.just(JobState.READY),
    queue=st.text(min_size=1),
    priority=st.integers(1, 100),
    run_at=moments,
    job=st.text(min_size=1),
    args=st.just("{}"),
    attempts=st.integers(0, 100),
    max_attempts=st.integers(1, 100),
    lock_token=st.integers(0, 2**62),
    deaths=st.integers(0, MAX_DEATHS - 1),
    alone=st.booleans(),
    last_error=st.none() | st.text(),
    unknown_since=st.none() | moments,
    created_at=moments,
    locked_by=st.none(),
    locked_at=st.none(),
    failed_at=st.none(),
    finished_at=st.none(),
    result=st.none(),
)
running = st.builds(claimed, waiting, worker=st.just("w1"), now=moments)


def record(**fields):
    return replace(drafted(JobDraft(job="shop.jobs:Mail", args="{}"), id=1, now=NOW), **fields)


@given(waiting, moments)
def test_a_claim_changes_the_lock_and_counts_the_try_and_touches_nothing_else(before, now):
    after = claimed(before, worker="w1", now=now)
    assert (after.state, after.locked_by, after.locked_at) == (JobState.RUNNING, "w1", now)
    assert (after.lock_token, after.attempts) == (before.lock_token + 1, before.attempts + 1)
    lock = {"state", "locked_by", "locked_at", "lock_token", "attempts"}
    assert all(getattr(after, name) == getattr(before, name) for name in set(JobRecord.__struct_fields__) - lock)


@given(running, outcomes, moments)
def test_whatever_ends_a_run_frees_the_lock_and_keeps_the_token(before, outcome, now):
    after = settled(before, outcome, now=now)
    if after is None:
        assert outcome == Succeeded(keep=False, result=outcome.result)
        return
    assert after.state is not JobState.RUNNING
    assert (after.locked_by, after.locked_at, after.lock_token) == (None, None, before.lock_token)
    assert before.attempts - after.attempts == isinstance(outcome, Snoozed | Unrecognised | Released)
    assert (after.finished_at == now) == (after.state in {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
    assert (after.failed_at == now) == (after.state is JobState.FAILED)


@given(running, outcomes, moments)
def test_only_a_failed_try_leaves_a_line_of_history(before, outcome, now):
    line = attempted(before, outcome, now=now)
    assert (line is not None) == isinstance(outcome, Retried | Failed)
    if line is not None:
        assert (line.attempt, line.worker, line.started_at) == (before.attempts, "w1", before.locked_at)


@given(running, st.sampled_from(Trace), moments)
def test_a_rescued_job_is_ready_or_has_failed_or_waits_where_it_timed_out(before, trace, now):
    after = rescued(before, trace, now=now)
    waits = {JobState.SCHEDULED} if trace is Trace.TIMED_OUT else {JobState.READY}
    assert after.state in {JobState.FAILED, *waits}
    assert (after.locked_by, after.locked_at, after.lock_token) == (None, None, before.lock_token)
    assert after.alone >= before.alone
    assert (after.state is JobState.FAILED) == (after.finished_at is not None) == (after.failed_at is not None)
    assert after.state is not JobState.FAILED or after.last_error is not None


@pytest.mark.parametrize(
    ("trace", "tries", "deaths", "error"),
    [
        (Trace.NOT_STARTED, 0, 0, None),
        (Trace.STARTED, 1, 1, "killed its worker"),
        (Trace.ENDED_WELL, 0, 0, None),
        (Trace.ENDED_BADLY, 1, 0, "failed, its outcome was lost with its worker"),
        (Trace.UNKNOWN, 0, 1, "killed its worker"),
        (Trace.TIMED_OUT, 1, 0, TIMED_OUT),
    ],
)
def test_the_notes_of_the_dead_decide_what_the_try_cost(trace, tries, deaths, error):
    before = claimed(record(), worker="w1", now=NOW)
    after = rescued(before, trace, now=LATER)
    assert (after.attempts, after.deaths, after.alone) == (tries, deaths, bool(deaths))
    line = lost(before, trace, now=LATER)
    assert (line and line.error) == error


@pytest.mark.parametrize(("attempts", "wait"), [(1, 1), (3, 81), (10_000, 366 * 24 * 3600)])
def test_what_timed_out_with_its_worker_waits_as_after_a_failed_try(attempts, wait):
    before = record(state=JobState.RUNNING, attempts=attempts, max_attempts=attempts + 1, locked_by="w1")
    after = rescued(before, Trace.TIMED_OUT, now=NOW)
    assert (after.state, after.run_at, after.last_error) == (
        JobState.SCHEDULED,
        NOW + timedelta(seconds=wait),
        TIMED_OUT,
    )
    assert TIMED_OUT.startswith("timeout")


def test_what_timed_out_with_its_worker_in_its_last_try_has_failed():
    before = record(state=JobState.RUNNING, attempts=3, max_attempts=3, locked_by="w1")
    after = rescued(before, Trace.TIMED_OUT, now=NOW)
    assert (after.state, after.last_error, after.deaths) == (JobState.FAILED, TIMED_OUT, 0)


@pytest.mark.parametrize("trace", [Trace.STARTED, Trace.UNKNOWN])
def test_the_third_death_is_the_last(trace):
    before = claimed(record(deaths=MAX_DEATHS - 1), worker="w1", now=NOW)
    assert rescued(before, trace, now=LATER).state is JobState.FAILED


def test_a_last_try_that_failed_unwritten_keeps_what_was_known_of_an_earlier_failure():
    before = claimed(record(max_attempts=1, last_error="ValueError: before"), worker="w1", now=NOW)
    after = rescued(before, Trace.ENDED_BADLY, now=LATER)
    assert (after.state, after.last_error) == (JobState.FAILED, "ValueError: before")


def test_a_draft_is_ready_when_it_is_due():
    states = [drafted(JobDraft(job="a", args="{}", wait=wait), id=1, now=NOW).state for wait in (-1, 0, 0.000001)]
    assert states == [JobState.READY, JobState.READY, JobState.SCHEDULED]


def test_promotion_changes_the_state_alone():
    due = record(state=JobState.SCHEDULED)
    assert promoted(due) == replace(due, state=JobState.READY)


@pytest.mark.parametrize("state", JobState)
def test_only_what_waits_can_be_cancelled_or_edited(state):
    waits = state in {JobState.SCHEDULED, JobState.READY, JobState.BLOCKED}
    assert (cancelled(record(state=state), now=NOW) is not None) == waits
    assert (edited(record(state=state), Edit(priority=1), now=NOW) is not None) == waits


@pytest.mark.parametrize("state", JobState)
def test_only_what_failed_was_cancelled_or_is_scheduled_can_be_retried(state):
    can = state in {JobState.FAILED, JobState.CANCELLED, JobState.SCHEDULED}
    assert (retried(record(state=state), now=NOW) is not None) == can


@pytest.mark.parametrize(("attempts", "max_attempts", "expected"), [(0, 1, 1), (1, 1, 2), (5, 3, 6), (2, 24, 24)])
def test_a_retry_by_hand_leaves_at_least_one_more_try(attempts, max_attempts, expected):
    failed = record(state=JobState.FAILED, attempts=attempts, max_attempts=max_attempts)
    assert retried(failed, now=NOW).max_attempts == expected


def test_a_blocked_job_stays_blocked_when_its_moment_is_moved():
    blocked = record(state=JobState.BLOCKED)
    assert [edited(blocked, Edit(run_at=moment), now=NOW).state for moment in (NOW, LATER)] == [JobState.BLOCKED] * 2


@pytest.mark.parametrize(("run_at", "state"), [(NOW, JobState.READY), (LATER, JobState.SCHEDULED)])
def test_a_moved_moment_decides_whether_a_job_is_ready(run_at, state):
    for before in (JobState.READY, JobState.SCHEDULED):
        assert edited(record(state=before), Edit(run_at=run_at), now=NOW).state is state


def test_an_edit_of_something_else_does_not_promote_a_due_job():
    due = record(state=JobState.SCHEDULED)
    assert edited(due, Edit(queue="email"), now=LATER) == replace(due, queue="email")

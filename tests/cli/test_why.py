from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from conftest import worker_record
from sapwood.cli.why import Reason, reason
from sapwood.lifecycle import drafted
from sapwood.record import JobDraft, JobState

NOW = datetime(2030, 1, 1, tzinfo=UTC)
READY = drafted(JobDraft(job="jobs:Fetch", args="{}", queue="net"), id=7, now=NOW)
LATER = drafted(JobDraft(job="jobs:Fetch", args="{}", wait=300), id=7, now=NOW)
ALL = worker_record("all")
EMAIL = replace(worker_record("email"), queues=("email",))
KNOWN = ["jobs:Fetch"]


@pytest.mark.parametrize(
    ("record", "workers", "expected"),
    [
        (READY, [], "no worker is running"),
        (READY, [EMAIL], 'no worker serves queue "net" (they serve email)'),
        (READY, [EMAIL, ALL], "it waits for a free worker"),
        (replace(READY, alone=True), [ALL], "a worker died while it ran"),
        (LATER, [ALL], "not due yet: in 5m (2030-01-01 00:05:00 UTC)"),
        (replace(LATER, attempts=2), [ALL], "; try 3 of 24"),
        (replace(LATER, run_at=NOW - timedelta(minutes=1)), [], "no worker is running"),
        (replace(LATER, run_at=NOW + timedelta(seconds=0.1)), [], "not due yet: in a moment"),
        (replace(READY, state=JobState.RUNNING, locked_by="gone"), [ALL], "its worker is gone"),
        (replace(READY, state=JobState.BLOCKED), [ALL], "it waits for a limit"),
        (replace(READY, state=JobState.FAILED, attempts=24), [], "all is tried: 24 of 24"),
        (replace(READY, job="jobs:Gone"), [ALL], "no class jobs:Gone is loaded in this app"),
        (replace(READY, job="jobs:Fetchs"), [ALL], "; there is jobs:Fetch"),
    ],
)
def test_a_job_that_does_not_run_has_its_reason(record, workers, expected):
    found = reason(record, workers, KNOWN, now=NOW)
    assert isinstance(found, Reason)
    assert expected in found.why


@pytest.mark.parametrize(
    "record",
    [
        replace(READY, state=JobState.RUNNING, locked_by="all"),
        replace(READY, state=JobState.SUCCEEDED),
        replace(READY, state=JobState.CANCELLED),
    ],
)
def test_there_is_nothing_to_say_of_a_job_that_runs_or_has_ended(record):
    assert reason(record, [ALL], KNOWN, now=NOW) is None

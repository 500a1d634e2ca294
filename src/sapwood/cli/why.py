"""Why a job is not running, as far as its row and the workers tell."""

import difflib
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from msgspec import Struct

from sapwood.adapters.base import BaseAdapter
from sapwood.cli.output import instant, short_name, until
from sapwood.record import JobRecord, JobState, WorkerRecord


class Reason(Struct, frozen=True):
    """Why, and what to do about it."""

    why: str
    mend: str = ""


def living_workers(adapter: BaseAdapter) -> Sequence[WorkerRecord]:
    """Return the workers of a store that are not proven dead."""
    return [worker for worker in adapter.workers() if not adapter.is_dead(worker)]


def reason(
    record: JobRecord, workers: Sequence[WorkerRecord], known: Collection[str], *, now: datetime | None = None
) -> Reason | None:
    """Return why ``record`` does not run, None where there is nothing to say.

    Args:
        record: the job.
        workers: the living workers of its store.
        known: the stored names of the classes that the app has.
        now: the present.
    """
    now = now or datetime.now(UTC)
    if record.state in {JobState.READY, JobState.SCHEDULED} and record.job not in known:
        return _unknown(record, known)
    match record.state:
        case JobState.SCHEDULED if record.run_at > now:
            retry = f"; try {record.attempts + 1} of {record.max_attempts}" if record.attempts else ""
            far = until(record.run_at, now).replace("now", "in a moment")
            return Reason(f"not due yet: {far} ({instant(record.run_at)}){retry}")
        case JobState.READY | JobState.SCHEDULED:
            return _unserved(record, workers)
        case JobState.RUNNING if record.locked_by not in {worker.id for worker in workers}:
            return Reason("its worker is gone; the next worker takes the job back", "sapwood work")
        case JobState.BLOCKED:
            return Reason("it waits for a limit")
        case JobState.FAILED:
            return Reason(
                f"all is tried: {record.attempts} of {record.max_attempts}, deaths of workers: {record.deaths}"
            )
        case _:
            return None


def _unknown(record: JobRecord, known: Collection[str]) -> Reason:
    close = difflib.get_close_matches(record.job, known, n=1)
    return Reason(
        f"no class {record.job} is loaded in this app" + (f"; there is {close[0]}" if close else ""),
        "if it moved, give the class aliases=[…] with the old name; if it is elsewhere, add its module to imports=[…]",
    )


def _unserved(record: JobRecord, workers: Sequence[WorkerRecord]) -> Reason:
    if not workers:
        return Reason("no worker is running", "sapwood work")
    if not any(worker.queues is None or record.queue in worker.queues for worker in workers):
        served = sorted({queue for worker in workers for queue in worker.queues or ()})
        return Reason(
            f'no worker serves queue "{record.queue}" (they serve {", ".join(served)})',
            f"sapwood work --queue {record.queue}",
        )
    if record.alone:
        return Reason("a worker died while it ran, so it waits until one has nothing else to do")
    return Reason("it waits for a free worker: others are before it, or it is about to be taken")


def title(record: JobRecord) -> str:
    """Return how people call a job: ``#7 WelcomeEmail``."""
    return f"#{record.id} {short_name(record.job)}"

"""At most once: the mark that is committed just before a job runs, and without which it does not."""

from sapwood import registry
from sapwood.adapters.base import BaseAdapter
from sapwood.errors import StoreError
from sapwood.events import Events, JobEnded, StoreFailed
from sapwood.lifecycle import STARTED_ONCE, Failed, Failure, Outcome, Released, Snoozed
from sapwood.record import JobRecord

PAUSE = 10.0
"""Seconds until a job is claimed again whose mark failed as no store should: it might fail so each time."""


class Marker:
    """Marks the jobs of classes that ask for it; all others cost it one look into the registry.

    Args:
        adapter: where the jobs are kept.
        events: told when the store did not answer.
    """

    def __init__(self, adapter: BaseAdapter, events: Events) -> None:
        self._adapter = adapter
        self._events = events

    def wants(self, record: JobRecord) -> bool:
        """Say whether a job is to be marked before it runs."""
        job_class = registry.find(record.job)
        return job_class is not None and job_class.delivery == "at_most_once"

    def mark(self, record: JobRecord) -> Outcome | None:
        """Mark a claimed job; return None where it may run, and otherwise what becomes of it, not having run.

        Where the answer is lost it does not run: the outcome, which is fenced like any other, takes the mark back.
        """
        if record.started_at is not None:
            # A worker of a release that knows no marks has given it back.
            outcome = Failed(Failure(STARTED_ONCE))
            self._events.emit(JobEnded(record, outcome, 0.0))
            return outcome
        try:
            marked = self._adapter.mark(record.locked_by or "", record)
        except StoreError as error:
            self._events.emit(StoreFailed("mark", error))
            marked = False
        except Exception as error:  # noqa: BLE001 - whatever it is, it has not run
            self._events.emit(StoreFailed("mark", error))
            return Snoozed(PAUSE)
        return None if marked else Released()

"""Facts about what happened. The log, and whoever else wants to know, listen; who states a fact waits for nobody."""

import logging
from collections.abc import Callable
from contextlib import suppress

from msgspec import Struct

from sapwood.lifecycle import Outcome
from sapwood.record import JobDraft, JobRecord, WorkerRecord
from sapwood.wording import story

_log = logging.getLogger("sapwood.events")


class JobsEnqueued(Struct, frozen=True):
    """Jobs were stored. Where they joined a transaction, its commit is still to come."""

    drafts: tuple[JobDraft, ...]
    ids: tuple[int, ...]


class JobStarted(Struct, frozen=True):
    """``perform`` is about to be called."""

    record: JobRecord


class JobEnded(Struct, frozen=True):
    """A run is over; its outcome is still to be written."""

    record: JobRecord
    outcome: Outcome
    seconds: float
    """How long the run took."""


class JobFenced(Struct, frozen=True):
    """An outcome was refused: the job belongs to another worker by now, or is gone."""

    record: JobRecord


class JobsReleased(Struct, frozen=True):
    """Jobs were given back that nobody worked on."""

    records: tuple[JobRecord, ...]
    why: str


class WorkerStarted(Struct, frozen=True):
    """A worker is known to its store and may claim."""

    worker: WorkerRecord


class WorkerStopped(Struct, frozen=True):
    """A worker has ended in good order."""

    worker: WorkerRecord


class WorkerRescued(Struct, frozen=True):
    """A worker was found dead and its jobs were taken back."""

    worker: str
    records: tuple[JobRecord, ...]


class WorkerFenced(Struct, frozen=True):
    """This worker was declared dead while it lived; it goes on under a new id."""

    worker: WorkerRecord


class WorkerDied(Struct, frozen=True):
    """A worker process ended, and nobody had asked it to."""

    name: str
    pid: int
    how: str
    """Its exit code, or the signal that ended it."""

    wait: float
    """Seconds until another takes its place."""


class JobsAbandoned(Struct, frozen=True):
    """Jobs had not finished when a worker had to end: their code is ended with the process, and they keep their try."""

    records: tuple[JobRecord, ...]
    why: str


class JobStuck(Struct, frozen=True):
    """A job has had its time, was asked to end, and does not: only the end of its process can end it."""

    record: JobRecord
    ends_process: bool
    """False: the process is the application's own, and the job keeps its slot until it ends by itself."""


class WorkerOverran(Struct, frozen=True):
    """A worker process was ended by its supervisor, for a job that outlasted its time."""

    name: str
    pid: int


class CodeChanged(Struct, frozen=True):
    """Files with jobs are no longer what this process has loaded."""

    files: tuple[str, ...]


class StoreFailed(Struct, frozen=True):
    """The store did not answer, or refused; what was asked of it is tried again."""

    doing: str
    error: Exception
    again: bool = False
    """It fails as it did before, less than a minute ago: nothing new for people."""


class StoreRecovered(Struct, frozen=True):
    """A store that had failed has done again what was asked of it."""

    doing: str
    seconds: float
    """How long it had not."""


Event = (
    JobsEnqueued
    | JobStarted
    | JobEnded
    | JobFenced
    | JobsReleased
    | WorkerStarted
    | WorkerStopped
    | WorkerRescued
    | WorkerFenced
    | WorkerDied
    | JobsAbandoned
    | JobStuck
    | WorkerOverran
    | CodeChanged
    | StoreFailed
    | StoreRecovered
)
Listener = Callable[[Event], None]


class Events:
    """Tells every listener of every fact. A listener's error is logged and goes no further."""

    def __init__(self) -> None:
        self._listeners: tuple[Listener, ...] = ()

    def listen(self, listener: Listener) -> None:
        """Tell ``listener`` of every fact from now on, in the thread that states it."""
        self._listeners = (*self._listeners, listener)

    def emit(self, event: Event) -> None:
        """State a fact."""
        for listener in self._listeners:
            try:
                listener(event)
            except Exception as error:  # noqa: BLE001 - a listener must not break the one who states the fact
                # A job may have closed the stream of the log.
                with suppress(Exception):
                    _log.error("a listener failed on %s\n%s", type(event).__name__, story(error))

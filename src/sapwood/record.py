"""The nouns that are stored: what a row holds, and who changes each part of it."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from msgspec import Meta, Struct

from sapwood.errors import ConfigurationError

LONGEST_QUEUE = 128
LONGEST_JOB = 255
"""The widths of the columns, in characters."""

# What can be read from a row. A claim adds one to what it counts, and every database must have room for that.
Priority = Annotated[int, Meta(ge=1, le=100)]
Tries = Annotated[int, Meta(ge=0, le=2**31 - 2)]
Most = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Token = Annotated[int, Meta(ge=0, le=2**63 - 2)]
Deaths = Annotated[int, Meta(ge=0, le=2**15 - 2)]


class JobState(StrEnum):
    """Where a job stands. The arrows between the states are the functions of :mod:`sapwood.lifecycle`."""

    SCHEDULED = "scheduled"
    """Waits for ``run_at``; promoted to ready when it is due."""

    READY = "ready"
    """May be claimed now."""

    RUNNING = "running"
    """Claimed by the worker in ``locked_by``."""

    BLOCKED = "blocked"
    """Waits for something other than time (a limit or a dependency)."""

    SUCCEEDED = "succeeded"
    """Done, and kept because its class says ``keep=True``. Otherwise success deletes the row."""

    FAILED = "failed"
    """All tries are spent, or it killed three workers. Stays until an operator acts."""

    CANCELLED = "cancelled"
    """Will not run. Stays until an operator acts."""


WAITING = frozenset({JobState.SCHEDULED, JobState.READY, JobState.BLOCKED})
"""The states from which a job may still be edited or cancelled."""


def check_queue(name: Any) -> None:
    """Refuse what cannot name a queue in every store.

    Raises:
        ConfigurationError: why.
    """
    _check_name(name, "a queue", LONGEST_QUEUE)


def check_job(name: Any) -> None:
    """Refuse what a job cannot be stored under in every store.

    Raises:
        ConfigurationError: why.
    """
    _check_name(name, "a job", LONGEST_JOB)


def _check_name(name: Any, noun: str, longest: int) -> None:
    what = f"{name if not isinstance(name, str) or len(name) <= longest else name[:longest] + '…'!r} cannot name {noun}"
    mend = f"a text of 1 to {longest} characters"
    if not isinstance(name, str):
        raise ConfigurationError(what, why="it is no text", mend=mend)
    if not 0 < len(name) <= longest:
        raise ConfigurationError(what, why=f"it has {len(name)} characters", mend=mend)
    if "\0" in name:
        raise ConfigurationError(what, why="PostgreSQL cannot store a NUL", mend=mend)
    if not name.isascii():
        try:
            name.encode()
        except UnicodeEncodeError as error:
            why = f"no encoding has its character {name[error.start]!r}, half of a pair"
            raise ConfigurationError(what, why=why, mend=mend) from None


class JobDraft(Struct, frozen=True, kw_only=True):
    """A job with its arguments, not yet stored."""

    job: str
    """The stored name of the class."""

    args: str
    """The arguments: a JSON object, as :mod:`sapwood.arguments` writes it."""

    queue: str = "default"

    priority: int = 50
    """1 is worked first, 100 last."""

    max_attempts: int = 24

    wait: float = 0
    """Seconds from the moment it is stored, by the store's clock. Used when ``run_at`` is None."""

    run_at: datetime | None = None
    """Not before this moment (aware)."""

    def __post_init__(self) -> None:
        """Refuse names that not every store can hold."""
        check_job(self.job)
        check_queue(self.queue)


class JobRecord(Struct, frozen=True, kw_only=True):
    """A stored job: one row of ``background_jobs``, as it was when it was read."""

    id: int
    """Given by the store. Never reused, so that a stale outcome can never meet another job."""

    state: JobState
    """Changed only by the verbs of an adapter, along the arrows of :mod:`sapwood.lifecycle`."""

    queue: str
    """Set on enqueue; an operator's edit may change it."""

    priority: Priority
    """1 is worked first, 100 last. Set on enqueue; an operator's edit may change it."""

    run_at: datetime
    """Not before this moment (UTC). Set on enqueue; moved forward by a retry; an edit may change it."""

    job: str
    """The stored name of the class, ``module:QualName`` or its ``name=``. Never changes."""

    args: str
    """The arguments of ``perform``: a JSON object. An operator's edit may change it."""

    attempts: Tries = 0
    """Tries begun so far. Raised by a claim; given back by a release, a snooze, or a rescue before the start."""

    max_attempts: Most = 24
    """Tries in all. Set on enqueue; a retry by hand raises it when all are spent."""

    lock_token: Token = 0
    """Grows by one at every claim and never shrinks: the fence against late outcomes."""

    locked_by: str | None = None
    """Id of the worker that holds the job. Set by a claim; emptied by whatever ends the run."""

    locked_at: datetime | None = None
    """When the claim was made, by the store's clock (UTC). For people and for durations, never for rescue."""

    deaths: Deaths = 0
    """How often a worker died while it ran this job. Raised by a rescue; cleared by a retry by hand."""

    alone: bool = False
    """True after a death: the job runs next with no neighbours. Cleared by a retry by hand."""

    last_error: str | None = None
    """Type and message of the last failure. Set by a failed try."""

    unknown_since: datetime | None = None
    """When a worker first found no class of this name (UTC). Cleared by the next outcome that is not that."""

    failed_at: datetime | None = None
    """When the last try failed for good (UTC). Cleared by a retry by hand."""

    finished_at: datetime | None = None
    """When the job came to its end, whatever end that was (UTC)."""

    created_at: datetime
    """When the row was made, by the store's clock (UTC)."""

    result: str | None = None
    """What ``perform`` returned, as JSON. Written only where the class keeps its rows."""

    started_at: datetime | None = None
    """When its one run began, where the class asks for at most one (UTC). Set by a mark; cleared by the outcome of the
    run and by a retry by hand. A running job that has it is never given back."""

    @property
    def claim(self) -> tuple[int, int]:
        """The claim that this record came with: its id and token, of this try and no other."""
        return self.id, self.lock_token


class JobAttempt(Struct, frozen=True, kw_only=True):
    """One failed try of a job: one row of ``background_attempts``, never changed."""

    job_id: int

    attempt: int
    """The number of the try, 1 for the first."""

    worker: str | None
    """Id of the worker that ran it."""

    started_at: datetime | None
    """When it was claimed (UTC)."""

    finished_at: datetime
    """When its outcome was written (UTC)."""

    error: str
    """Type and message."""

    traceback: str | None = None


class WorkerRecord(Struct, frozen=True, kw_only=True):
    """A living worker: one row of ``background_workers``. It stands before the first claim and goes at the end."""

    id: str
    """Random per start of a worker, so that nobody can mistake one for another."""

    host: str

    pid: int

    queues: Sequence[str] | None
    """The queues it serves, None for all."""

    concurrency: int

    release: str
    """The release of Sapwood that it runs."""

    name: str | None = None
    """What people call it, such as ``default.1``; None for a worker that no supervisor started."""

    supervisor: str | None = None
    """Id of the supervisor that looks after it, None for a worker that looks after itself."""

    beat: int = 0
    """Raised every few seconds by the worker, or by its supervisor. A counter that stands still is a sign of death;
    its age is not."""

    beat_at: datetime | None = None
    """When it last rose (UTC). For people only."""

    started_at: datetime | None = None

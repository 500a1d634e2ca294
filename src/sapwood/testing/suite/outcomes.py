"""What each outcome leaves of a running job, written out."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from sapwood.lifecycle import Cancelled, Failed, Outcome, Released, Retried, Snoozed, Succeeded, Unrecognised
from sapwood.record import JobAttempt, JobState
from sapwood.testing.suite.bench import BOOM, NOW, at
from sapwood.testing.suite.standings import UNLOCKED, line

GONE = None


class Left(Struct, frozen=True):
    """What a verb leaves of a job that it applies to."""

    changes: Mapping[str, Any] | None
    """The fields that differ from before, or GONE."""

    line: JobAttempt | None = None
    """The line of history that is added."""


OUTCOMES: Mapping[str, Outcome] = {
    "succeeded": Succeeded(),
    "kept": Succeeded(keep=True, result='{"größe": 1}'),
    "retried": Retried(60, BOOM),
    "retried at once": Retried(0, BOOM),
    "failed": Failed(BOOM),
    "snoozed": Snoozed(90.5),
    "snoozed for no time": Snoozed(0),
    "unrecognised": Unrecognised(60, BOOM),
    "cancelled": Cancelled("asked to"),
    "released": Released(),
}

_SCHEDULED = UNLOCKED | {"state": JobState.SCHEDULED}
_READY = UNLOCKED | {"state": JobState.READY}
_ENDED = UNLOCKED | {"finished_at": NOW}
_LINE = line(BOOM.error, BOOM.traceback, finished_at=NOW)
_FAILURE = {"last_error": BOOM.error}

SETTLED: Mapping[str, Left] = {
    "succeeded": Left(GONE),
    "kept": Left(_ENDED | {"state": JobState.SUCCEEDED, "result": '{"größe": 1}'}),
    "retried": Left(_SCHEDULED | _FAILURE | {"run_at": at(160)}, _LINE),
    "retried at once": Left(_READY | _FAILURE | {"run_at": NOW}, _LINE),
    "failed": Left(_ENDED | _FAILURE | {"state": JobState.FAILED, "failed_at": NOW}, _LINE),
    "snoozed": Left(_SCHEDULED | {"run_at": at(190.5), "attempts": 0}),
    "snoozed for no time": Left(_READY | {"run_at": NOW, "attempts": 0}),
    "unrecognised": Left(_SCHEDULED | _FAILURE | {"run_at": at(160), "attempts": 0, "unknown_since": NOW}),
    "cancelled": Left(_ENDED | {"state": JobState.CANCELLED, "last_error": "asked to"}),
    "released": Left(_READY | {"attempts": 0}),
}

_KNOWN_AGAIN = {"unknown_since": None}
SETTLED_WORN: Mapping[str, Mapping[str, Any]] = {
    "kept": _KNOWN_AGAIN | {"alone": False},
    "retried": _KNOWN_AGAIN,
    "failed": _KNOWN_AGAIN,
    "snoozed": _KNOWN_AGAIN,
    "unrecognised": {"unknown_since": at(11.5)},
    "cancelled": _KNOWN_AGAIN,
    "released": {},
}
"""What more is expected of a job that died, and was not recognised, before."""

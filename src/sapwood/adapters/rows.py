"""From rows to records, and what becomes of rows that are none.

Whoever may write the tables may write nonsense: text for a moment, a token at the end of all numbers. Such a row must
not hold up the others, nor the operator who looks at them. It becomes a failed job that says what was wrong with it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, get_args

import msgspec
from sqlalchemy import Connection, Select, Table, delete, select, update
from sqlalchemy.exc import DBAPIError

from sapwood.adapters.dialects.base import Dialect
from sapwood.adapters.tables import Tables
from sapwood.errors import UnreadableRow
from sapwood.record import JobAttempt, JobRecord, JobState, WorkerRecord

UNREADABLE = (DBAPIError, msgspec.MsgspecError, ValueError, TypeError, AttributeError, ArithmeticError, LookupError)
"""What comes of reading such a row, or of counting on in it."""

_PAGE = 1000

_HIGHEST = 2**30
_ENDED = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
_COUNTERS = {"priority": (1, 100, 50), "lock_token": (0, 2**62, 0), "deaths": (0, 3, 0)}
"""The lowest and the highest that is kept, and what stands for no number at all."""

_TYPES = {field.name: field.type for field in msgspec.structs.fields(JobRecord)}

_FALLBACK = (0, _HIGHEST, 0)


def record_of(row: Any) -> JobRecord:
    """Return the job in a row.

    Raises:
        ValidationError: it is none.
    """
    values = dict(zip(JobRecord.__struct_fields__, row, strict=True))
    values["alone"] = bool(values["alone"])
    return msgspec.convert(values, JobRecord)


def attempt_of(row: Any) -> JobAttempt:
    """Return the failed try in a row, without its id.

    Raises:
        ValidationError: it is none.
    """
    return msgspec.convert(dict(zip(JobAttempt.__struct_fields__, row, strict=True)), JobAttempt)


def worker_of(row: Any) -> WorkerRecord:
    """Return the worker in a row.

    Raises:
        MsgspecError: it is none.
    """
    values = dict(zip(WorkerRecord.__struct_fields__, row, strict=True))
    if values["queues"] is not None:
        values["queues"] = msgspec.json.decode(values["queues"])
    return msgspec.convert(values, WorkerRecord)


class Sieve:
    """Finds the rows that cannot be read, in all tables.

    Args:
        tables: the tables.
        dialect: how the database writes a column as text.
    """

    def __init__(self, tables: Tables, dialect: Dialect) -> None:
        self._tables = tables
        self._dialect = dialect
        self._readers: Sequence[tuple[Table, Callable[[Any], Any]]] = (
            (tables.jobs, _claimable),
            (tables.attempts, lambda row: attempt_of(row[1:])),
            (tables.workers, worker_of),
        )

    def find(self, connection: Connection) -> Mapping[Table, Sequence[Any]]:
        """Return the ids of such rows, by table."""
        return {table: list(self._found(connection, table, read)) for table, read in self._readers}

    def remove(self, connection: Connection, found: Mapping[Table, Sequence[Any]], now: datetime) -> None:
        """Make failed jobs of jobs, and delete the rest: a line of history, or a worker, whose jobs are swept then."""
        for table, ids in found.items():
            for key in ids:
                this = table.c.id == key
                if table is not self._tables.jobs:
                    connection.execute(delete(table).where(this))
                    continue
                texts = [self._dialect.as_text(column).label(column.name) for column in table.c]
                row = connection.execute(select(*texts).where(this)).first()
                if row is not None:
                    raw = {name: self._dialect.from_text(text) for name, text in row._mapping.items()}  # noqa: SLF001 - its public name
                    values = msgspec.structs.asdict(set_aside(raw, id=key, now=now))
                    values.update(state=values["state"].value, alone=0)
                    connection.execute(update(table).where(this).values(values))

    def _found(self, connection: Connection, table: Table, read: Callable[[Any], Any]) -> Iterator[Any]:
        after: Any = None
        while True:
            page = select(table.c.id).order_by(table.c.id).limit(_PAGE)
            ids = connection.scalars(page if after is None else page.where(table.c.id > after)).all()
            if not ids:
                return
            rows = select(table).where(table.c.id >= ids[0], table.c.id <= ids[-1])
            if not _reads(connection, rows, read):
                yield from (key for key in ids if not _reads(connection, select(table).where(table.c.id == key), read))
            after = ids[-1]


def _claimable(row: Any) -> None:
    """Read a row, and see that there is room to count on in it."""
    record = record_of(row)
    for field in ("attempts", "lock_token", "deaths"):
        msgspec.convert(getattr(record, field) + 1, _TYPES[field])


def _reads(connection: Connection, rows: Select[Any], read: Callable[[Any], Any]) -> bool:
    try:
        for row in connection.execute(rows):
            read(row)
    except UNREADABLE:
        return False
    return True


def set_aside(raw: Mapping[str, str | None], *, id: int, now: datetime) -> JobRecord:
    """Return the failed job that stands for a row from now on.

    Args:
        raw: its columns, as text.
        id: its id.
        now: the present: also what stands for moments that are none.
    """
    values: dict[str, Any] = {"id": id}
    odd: list[str] = []
    for field in msgspec.structs.fields(JobRecord):
        if field.name != "id":
            values[field.name] = _value(field, raw[field.name], now, odd)
    error = UnreadableRow(
        "the row cannot be read",
        why=f"no release of Sapwood has written it so: {', '.join(odd) or 'its columns'}",
        mend="see who else writes to the table; the row can be deleted",
    )
    values.update(locked_by=None, locked_at=None, alone=False, last_error=f"{type(error).__name__}: {error}")
    if values["state"] not in _ENDED:
        values.update(state=JobState.FAILED, failed_at=now, finished_at=now)
    return JobRecord(**values)


def _value(field: Any, text: str | None, now: datetime, odd: list[str]) -> Any:
    """Return the value of a column, or what stands for it; note its name where it is no such value."""
    if text is None and field.default is None:
        return None
    told = _told(field.name, text, now)
    try:
        return msgspec.convert(_READERS.get(field.name, _text)(text), field.type)
    except UNREADABLE:
        odd.append(field.name)
        return told


def _told(name: str, text: str | None, now: datetime) -> Any:
    if name == "state":
        return JobState.FAILED
    if name in _MOMENTS:
        return now
    if name not in _NUMBERS:
        return (text or "").replace("\0", "\ufffd")
    lowest, highest, none = _COUNTERS.get(name, _FALLBACK)
    try:
        return max(lowest, min(int(text or ""), highest))
    except ValueError:
        return none


def _text(text: str | None) -> str | None:
    return text


def _number(text: str | None) -> int:
    return int(text or "")


def _moment(text: str | None) -> datetime:
    moment = datetime.fromisoformat(text or "")
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


_NUMBERS = frozenset({"priority", "attempts", "max_attempts", "lock_token", "deaths"})
_MOMENTS = frozenset(name for name, kind in _TYPES.items() if datetime in (kind, *get_args(kind)))
_READERS: Mapping[str, Callable[[str | None], Any]] = (
    dict.fromkeys(_NUMBERS, _number)
    | dict.fromkeys(_MOMENTS, _moment)
    | {"alone": lambda text: text not in {"0", None}}
)

"""The tables, said once in SQLAlchemy's words: :mod:`sapwood.record` tells what each column means."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    DDL,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    event,
    text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeDecorator

from sapwood.errors import ConfigurationError
from sapwood.record import LONGEST_JOB, LONGEST_QUEUE, JobAttempt, JobRecord, JobState, WorkerRecord

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_LONGEST_NAME = "jobs_scheduled_idx"


# With time zone where a server has that, and to the microsecond. SQLite keeps it as text that sorts.
_Moment = DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


class Instant(TypeDecorator[datetime]):
    """An aware moment in UTC, to the microsecond."""

    impl = _Moment
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Send UTC."""
        if value is None or dialect.name == "postgresql":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return an aware moment."""
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


_WHOLE = frozenset({"mysql", "mariadb"})
"""Databases without partial indexes."""
"""Databases with partial indexes."""

ALL_READY = "state = 'ready' AND alone < 1 AND priority > 0"
"""The condition of PostgreSQL's index over all queues, which a claim must say word for word."""

# SQLite gives out ids only for a column that is exactly INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")

# MySQL's TEXT ends at 64 KiB; arguments may take 1 MiB.
_Text = Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")

# Exact comparison, as everywhere else: neither case nor accents nor trailing spaces are ignored.
_MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_nopad_bin"}

_JOBS_STORAGE = DDL(  # type: ignore[no-untyped-call]  # it has no types
    # Every job leaves dead rows, and a claim steps over them: they go long before a fifth of a large table is dead.
    "ALTER TABLE %(fullname)s SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000, "
    "autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 1)"
)
_WORKERS_STORAGE = DDL(  # type: ignore[no-untyped-call]  # it has no types
    # A beat writes the row anew, and finds room for it on the same page: no index is touched.
    "ALTER TABLE %(fullname)s SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, "
    "autovacuum_vacuum_threshold = 1000)"
)


class Tables:
    """The tables of one installation.

    Args:
        prefix: what their names begin with.
        schema: the schema they live in, None for the connection's own.
        database: the kind of database, as a URL names it: it decides about the indexes.

    Raises:
        ConfigurationError: a name that is no plain identifier.
    """

    def __init__(self, prefix: str = "background_", schema: str | None = None, *, database: str = "sqlite") -> None:
        for name in (f"{prefix}{_LONGEST_NAME}", schema):
            if name is not None and not _IDENTIFIER.fullmatch(name):
                raise ConfigurationError(
                    f"{name!r} cannot name a table or a schema",
                    why="names hold letters, digits and underscores, begin with no digit, and have at most 63 places",
                    mend="choose another prefix= or schema=",
                )
        self.metadata = MetaData(schema=schema)
        self.jobs = _jobs(self.metadata, prefix, database)
        self.attempts = _attempts(self.metadata, prefix)
        self.workers = _workers(self.metadata, prefix)
        self.meta = Table(
            f"{prefix}meta",
            self.metadata,
            Column("key", String(64), primary_key=True),
            Column("value", String(255), nullable=False),
            **_MYSQL,
        )
        # As statements of their own, so that a table that is there already is given them in the same words.
        self.storage = {self.jobs: _JOBS_STORAGE, self.workers: _WORKERS_STORAGE}
        for table, storage in self.storage.items():
            event.listen(table, "after_create", storage.execute_if(dialect="postgresql"))

    def for_migrations(self) -> MetaData:
        """Return a copy of the tables in SQLAlchemy's own types, for the ``target_metadata`` of a migration tool.

        A migration that is generated from it imports nothing of Sapwood, and so still runs years later.
        """
        plain = MetaData(schema=self.metadata.schema)
        for table in self.metadata.tables.values():
            for column in table.to_metadata(plain).columns:
                if isinstance(column.type, Instant):
                    column.type = _Moment
        return plain

    def not_ours(self, name: str | None, type_: str, parent_names: Mapping[str, str | None]) -> bool:
        """Return False for the name of one of these tables: an ``include_name`` that lets Alembic leave them alone."""
        if type_ != "table" or parent_names.get("schema_name") not in {None, self.metadata.schema}:
            return True
        return name not in {table.name for table in self.metadata.tables.values()}


def _jobs(metadata: MetaData, prefix: str, database: str) -> Table:
    name = f"{prefix}jobs"
    states = ", ".join(f"'{state}'" for state in JobState)
    table = Table(
        name,
        metadata,
        Column("id", _Id, primary_key=True, autoincrement=True),
        Column("state", String(16), nullable=False),
        Column("queue", String(LONGEST_QUEUE), nullable=False),
        Column("priority", SmallInteger, nullable=False),
        Column("run_at", Instant, nullable=False),
        Column("job", String(LONGEST_JOB), nullable=False),
        Column("args", _Text, nullable=False),
        Column("attempts", Integer, nullable=False),
        Column("max_attempts", Integer, nullable=False),
        Column("lock_token", BigInteger, nullable=False),
        Column("locked_by", String(32)),
        Column("locked_at", Instant),
        Column("deaths", SmallInteger, nullable=False),
        Column("alone", SmallInteger, nullable=False),
        Column("last_error", _Text),
        Column("unknown_since", Instant),
        Column("failed_at", Instant),
        Column("finished_at", Instant),
        Column("created_at", Instant, nullable=False),
        Column("result", _Text),
        Column("started_at", Instant),
        CheckConstraint(f"state IN ({states})", name=f"{name}_state"),
        CheckConstraint("(state = 'running') = (locked_by IS NOT NULL)", name=f"{name}_locked"),
        CheckConstraint("priority BETWEEN 1 AND 100", name=f"{name}_priority"),
        # A deleted id must never come back: a late outcome of the old job could meet the new one.
        sqlite_autoincrement=True,
        **_MYSQL,
    )
    assert tuple(table.columns.keys()) == JobRecord.__struct_fields__  # noqa: S101 - a slip of ours, not of a user
    if database in _WHOLE:
        _whole_indexes(table)
    else:
        _partial_indexes(table)
    if database == "postgresql":
        # All queues in one order. Its condition says the same in other words, so that the planner, whatever it thinks
        # of a queue, cannot read this index for that queue, nor sort the other for all of them.
        _index(f"{name}_urgent_idx", ALL_READY, table, "priority", "run_at", "id")
    return table


def _partial_indexes(table: Table) -> None:
    name = table.name
    _index(f"{name}_ready_idx", "state = 'ready' AND alone = 0", table, "queue", "priority", "run_at", "id")
    _index(f"{name}_alone_idx", "state = 'ready' AND alone = 1", table, "queue", "priority", "run_at", "id")
    _index(f"{name}_scheduled_idx", "state = 'scheduled'", table, "priority", "run_at", "id")
    _index(f"{name}_running_idx", "state = 'running'", table, "locked_by")


def _index(name: str, where: str, table: Table, *columns: str) -> None:
    """Index only the rows that a verb looks for, so that all other rows cost it nothing."""
    condition = text(where)
    Index(name, *(table.c[column] for column in columns), sqlite_where=condition, postgresql_where=condition)


def _whole_indexes(table: Table) -> None:
    # MySQL has no partial indexes: there the conditions are leading columns.
    for purpose, key in {
        "claim": ("state", "alone", "queue", "priority", "run_at", "id"),
        "urgent": ("state", "alone", "priority", "run_at", "id"),
        "owner": ("state", "locked_by"),
    }.items():
        Index(f"{table.name}_{purpose}_idx", *(table.c[part] for part in key))


def _attempts(metadata: MetaData, prefix: str) -> Table:
    table = Table(
        f"{prefix}attempts",
        metadata,
        Column("id", _Id, primary_key=True, autoincrement=True),
        Column("job_id", BigInteger, nullable=False, index=True),
        Column("attempt", Integer, nullable=False),
        Column("worker", String(32)),
        Column("started_at", Instant),
        Column("finished_at", Instant, nullable=False),
        Column("error", _Text, nullable=False),
        Column("traceback", _Text),
        **_MYSQL,
    )
    assert tuple(table.columns.keys())[1:] == JobAttempt.__struct_fields__  # noqa: S101 - a slip of ours
    return table


def _workers(metadata: MetaData, prefix: str) -> Table:
    table = Table(
        f"{prefix}workers",
        metadata,
        Column("id", String(32), primary_key=True),
        Column("host", String(255), nullable=False),
        Column("pid", Integer, nullable=False),
        Column("queues", _Text),
        Column("concurrency", Integer, nullable=False),
        Column("release", String(32), nullable=False),
        Column("name", String(255)),
        Column("supervisor", String(32)),
        Column("beat", BigInteger, nullable=False),
        Column("beat_at", Instant),
        Column("started_at", Instant),
        **_MYSQL,
    )
    assert tuple(table.columns.keys()) == WorkerRecord.__struct_fields__  # noqa: S101 - a slip of ours
    return table

"""Numbered steps that bring the tables to this release. They only ever add, so old and new workers run side by side."""

import uuid
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, Dialect, Inspector, Table, insert, inspect, select, update
from sqlalchemy.engine.mock import MockConnection
from sqlalchemy.schema import CreateColumn

from sapwood.adapters.tables import Tables
from sapwood.errors import SchemaTooNew

OLDEST_READER = 1
"""The oldest schema version whose release can still work with the tables as this release leaves them."""


class Step(Struct, frozen=True):
    """One migration."""

    name: str
    apply: Callable[[Connection, Tables], None]
    """Adds what is missing, and nothing that is there."""


def _create_tables(connection: Connection, tables: Tables) -> None:
    tables.metadata.create_all(connection)


def _add_supervisors(connection: Connection, tables: Tables) -> None:
    _add_columns(connection, tables.workers, "name", "supervisor")


def _tune(connection: Connection, tables: Tables) -> None:
    """Add what keeps claims cheap: an index over all queues, and storage that is vacuumed in time."""
    for index in tables.jobs.indexes:
        if index.name == f"{tables.jobs.name}_urgent_idx":
            index.create(connection, checkfirst=True)
    if connection.dialect.name == "postgresql":
        for table, storage in tables.storage.items():
            connection.execute(storage.against(table))


def _add_marks(connection: Connection, tables: Tables) -> None:
    _add_columns(connection, tables.jobs, "started_at")


STEPS: Sequence[Step] = (
    Step("1 create the tables", _create_tables),
    Step("2 let workers have a name and a supervisor", _add_supervisors),
    Step("3 order the jobs of all queues, and vacuum in time", _tune),
    Step("4 let jobs be marked when they begin", _add_marks),
)
"""Step *n* leads to schema version *n*."""

SCHEMA_VERSION = len(STEPS)


class Status(Struct, frozen=True, kw_only=True):
    """Where the tables stand, as this release sees them."""

    version: int
    """The schema version of the tables, 0 where there are none or nobody has noted it."""

    release_version: int = SCHEMA_VERSION
    """The schema version that this release makes."""

    oldest_reader: int | None
    """The oldest schema version whose releases can still work with the tables, None where nobody has noted it."""

    @property
    def is_too_new(self) -> bool:
        """Say whether a later release has changed the tables beyond what this one can read."""
        return self.oldest_reader is not None and self.oldest_reader > self.release_version

    @property
    def taken(self) -> Sequence[str]:
        """The names of the steps of this release that were taken."""
        return [step.name for step in STEPS[: self.version]]

    @property
    def pending(self) -> Sequence[str]:
        """The names of the steps that are still to be taken."""
        return [step.name for step in STEPS[self.version :]]


def status(connection: Connection, tables: Tables) -> Status:
    """Return where the tables stand, whatever release made them."""
    inspector: Inspector = inspect(connection)
    if not inspector.has_table(tables.meta.name, schema=tables.meta.schema):
        return Status(version=0, oldest_reader=None)
    version, oldest = (_recall(connection, tables, key) for key in ("schema_version", "oldest_reader"))
    return Status(version=int(version or 0), oldest_reader=None if oldest is None else int(oldest))


def pending(connection: Connection, tables: Tables) -> Sequence[Step]:
    """Return the steps that are still to be taken.

    Raises:
        SchemaTooNew: a later release has changed the tables beyond what this one can read.
    """
    standing = status(connection, tables)
    refuse_too_new(standing.oldest_reader)
    return STEPS[standing.version :]


def refuse_too_new(oldest_reader: str | int | None) -> None:
    """Refuse tables that only a later release can work with.

    Args:
        oldest_reader: the oldest schema version whose release still can, as the tables say it.

    Raises:
        SchemaTooNew: this release is older.
    """
    if oldest_reader is not None and int(oldest_reader) > SCHEMA_VERSION:
        raise SchemaTooNew(
            f"the tables need a release that knows schema {oldest_reader}",
            why=f"this one knows up to {SCHEMA_VERSION}",
            mend="upgrade sapwood on this machine",
        )


def migrate(connection: Connection, tables: Tables) -> Sequence[str]:
    """Take the pending steps in the transaction of ``connection``; return their names."""
    steps = pending(connection, tables)
    for step in steps:
        step.apply(connection, tables)
    if steps:
        _remember(connection, tables, "schema_version", str(SCHEMA_VERSION))
        _remember(connection, tables, "oldest_reader", str(OLDEST_READER))
        if _recall(connection, tables, "installation_id") is None:
            _remember(connection, tables, "installation_id", uuid.uuid4().hex)
    return [step.name for step in steps]


def sql(dialect: Dialect, tables: Tables) -> str:
    """Return the statements that a fresh database needs, for other migration tools."""
    meta = {
        "schema_version": str(SCHEMA_VERSION),
        "oldest_reader": str(OLDEST_READER),
        "installation_id": uuid.uuid4().hex,
    }
    statements: list[str] = []

    def note(statement: Any, *_: Any, **__: Any) -> None:
        statements.append(str(statement.compile(dialect=dialect)).strip())

    tables.metadata.create_all(MockConnection(dialect, note), checkfirst=False)
    for key, value in meta.items():
        row = insert(tables.meta).values(key=key, value=value)
        statements.append(str(row.compile(dialect=dialect, compile_kwargs={"literal_binds": True})))
    return "".join(f"{statement};\n" for statement in statements)


def _add_columns(connection: Connection, table: Table, *names: str) -> None:
    """Add columns that are not there; a table that this release has just made has them all."""
    present = {column["name"] for column in inspect(connection).get_columns(table.name, schema=table.schema)}
    quoted = connection.dialect.identifier_preparer.format_table(table)
    for name in names:
        if name not in present:
            column = CreateColumn(table.c[name]).compile(dialect=connection.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {quoted} ADD COLUMN {column}")


def _recall(connection: Connection, tables: Tables, key: str) -> str | None:
    return connection.scalar(select(tables.meta.c.value).where(tables.meta.c.key == key))


def _remember(connection: Connection, tables: Tables, key: str, value: str) -> None:
    changed = connection.execute(update(tables.meta).where(tables.meta.c.key == key).values(value=value))
    if not changed.rowcount:
        connection.execute(insert(tables.meta).values(key=key, value=value))

"""Alembic makes the tables where the application wants that, and never drops them where it does not."""

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Column, Engine, Integer, MetaData, Table, create_engine, inspect, text

from conftest import worker_record
from sapwood.adapters.base import Settlement
from sapwood.adapters.migrations import STEPS
from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
from sapwood.errors import SchemaOutdated
from sapwood.lifecycle import Succeeded
from sapwood.record import JobDraft

KINDS = ["sqlite", "postgresql", "mysql"]
NAMES = [step.name for step in STEPS]

ENV = """
from alembic import context

given = context.config.attributes
with given["engine"].connect() as connection:
    context.configure(connection=connection, **given["options"])
    with context.begin_transaction():
        context.run_migrations()
"""


class Application:
    """An application with a table of its own and migrations by Alembic."""

    def __init__(self, engine: Engine, folder: Path, metadata: list[MetaData], **options: object) -> None:
        folder.mkdir()
        self._config = Config(folder / "alembic.ini", stdout=StringIO())
        self._config.set_main_option("script_location", str(folder / "migrations"))
        command.init(self._config, str(folder / "migrations"))
        (folder / "migrations" / "env.py").write_text(ENV)
        own = MetaData()
        # Whose name is not ours begins as ours do.
        Table("background_music", own, Column("id", Integer, primary_key=True))
        self._config.attributes["engine"] = engine
        self._config.attributes["options"] = {"target_metadata": [own, *metadata], **options}

    def generate(self) -> str:
        """Generate a migration and return its text."""
        return Path(command.revision(self._config, autogenerate=True).path).read_text()

    def upgrade(self) -> None:
        """Run the migrations."""
        command.upgrade(self._config, "head")

    def has_no_difference(self) -> None:
        """Fail unless another migration would be empty."""
        command.check(self._config)


@pytest.fixture
def place(database_url, tmp_path):
    """Make an empty database of a kind; return an adapter and an engine of the application."""
    made = []

    def make(kind: str, **options: str) -> tuple[SQLAlchemyAdapter, Engine]:
        url = database_url(kind)
        made.append((SQLAlchemyAdapter(url, **options), create_engine(url)))
        return made[-1]

    yield make
    for adapter, engine in made:
        adapter.close()
        engine.dispose()


def schema(engine: Engine) -> dict[str, object]:
    """Return all that the database says of our tables."""
    look = inspect(engine)
    return {
        name: (
            [(column["name"], str(column["type"]), column["nullable"]) for column in look.get_columns(name)],
            look.get_pk_constraint(name)["constrained_columns"],
            sorted(look.get_check_constraints(name), key=str),
            sorted(_written(index) for index in look.get_indexes(name)),
        )
        for name in look.get_table_names()
        if name not in {"alembic_version", "background_music"}
    }


def _written(index: Any) -> str:
    options = {option: str(value) for option, value in index.get("dialect_options", {}).items()}
    return str(sorted({**index, "dialect_options": options}.items()))


@pytest.mark.parametrize("kind", KINDS)
def test_autogenerate_makes_the_tables_that_the_application_includes(kind, place, tmp_path):
    adapter, engine = place(kind)
    application = Application(engine, tmp_path / "alembic", [adapter.tables.for_migrations()])
    generated = application.generate()
    assert "sapwood" not in generated, "what is generated runs without us"
    assert "sqlite_autoincrement=True" in generated, "no id comes back"
    application.upgrade()
    application.has_no_difference()

    other, others_engine = place(kind)
    other.migrate()
    assert schema(engine) == schema(others_engine)


@pytest.mark.parametrize("kind", KINDS)
def test_migrate_completes_tables_that_came_by_alembic(kind, place, tmp_path):
    adapter, engine = place(kind)
    application = Application(engine, tmp_path / "alembic", [adapter.tables.for_migrations()])
    application.generate()
    application.upgrade()
    if kind != "sqlite":
        with pytest.raises(SchemaOutdated, match="create the tables"):
            adapter.register(worker_record())
    before = schema(engine)
    assert (adapter.migrate(), adapter.migrate()) == (NAMES, [])
    assert schema(engine) == before
    application.has_no_difference()

    with engine.connect() as connection:
        told = dict(connection.execute(text("SELECT * FROM background_meta")).all())
    assert set(told) == {"schema_version", "oldest_reader", "installation_id"}
    adapter.register(worker_record("w"))
    with engine.begin() as connection:
        jobs = adapter.enqueue([JobDraft(job="m:J", args="{}")], connection=connection)
    (record,) = adapter.claim("w", limit=1).claimed
    assert adapter.settle("w", [Settlement(record, Succeeded())]) == frozenset(jobs)
    adapter.unregister("w")


@pytest.mark.parametrize("kind", KINDS)
def test_autogenerate_leaves_alone_the_tables_that_the_application_does_not_include(kind, place, tmp_path):
    adapter, engine = place(kind)
    adapter.migrate()
    careless = Application(engine, tmp_path / "careless", [])
    assert "op.drop_table('background_jobs')" in careless.generate()
    application = Application(engine, tmp_path / "careful", [], include_name=adapter.tables.not_ours)
    generated = application.generate()
    assert "'background_music'" in generated
    assert "background_jobs" not in generated
    application.upgrade()
    application.has_no_difference()


@pytest.mark.parametrize("included", [True, False], ids=["included", "not included"])
def test_tables_in_a_schema_of_their_own_are_told_from_the_applications(included, place, tmp_path):
    adapter, engine = place("postgresql", schema="jobs")
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA jobs"))
        connection.execute(text("CREATE TABLE background_music (id INTEGER PRIMARY KEY)"))
    metadata = [adapter.tables.for_migrations()] if included else []
    options = {} if included else {"include_name": adapter.tables.not_ours}
    if not included:
        adapter.migrate()
    application = Application(engine, tmp_path / "alembic", metadata, include_schemas=True, **options)
    assert ("background_jobs" in application.generate()) is included
    application.upgrade()
    application.has_no_difference()
    assert not adapter.tables.not_ours("background_jobs", "table", {"schema_name": "jobs"})
    assert adapter.tables.not_ours("background_jobs", "table", {"schema_name": "another"})
    assert adapter.tables.not_ours("jobs", "schema", {})

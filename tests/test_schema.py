"""Tables that are of another release than this one."""

from contextlib import contextmanager

import pytest
from sqlalchemy import NullPool, create_engine, make_url
from sqlalchemy.orm import Session

import servers
from conftest import worker_record
from sapwood.adapters import migrations
from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
from sapwood.errors import SchemaMissing, SchemaOutdated, SchemaTooNew
from sapwood.record import JobDraft

DRAFT = JobDraft(job="m:J", args="{}")
SERVERS = ["postgresql", "mysql"]
OWN_VERBS = {
    "enqueue": lambda adapter: adapter.enqueue([DRAFT]),
    "register": lambda adapter: adapter.register(worker_record("w")),
    "claim": lambda adapter: adapter.claim("w", limit=1),
    "beat": lambda adapter: adapter.beat(["w"]),
    "jobs": lambda adapter: adapter.jobs(),
}


@contextmanager
def opened(url):
    """An adapter as another process has it: nothing is known yet."""
    adapter = SQLAlchemyAdapter(url)
    try:
        yield adapter
    finally:
        adapter.close()


def execute(url, statement):
    return servers._execute(make_url(url), statement)


def migrated(url):
    with opened(url) as adapter:
        adapter.migrate()
    return url


@contextmanager
def session(url):
    with Session(create_engine(url, poolclass=NullPool)) as made:
        yield made


@pytest.mark.parametrize("server", SERVERS)
def test_tables_that_only_a_later_release_can_use_are_left_alone_by_every_verb(server, database_url):
    url = migrated(database_url(server))
    quote = "`" if server == "mysql" else '"'
    execute(url, f"UPDATE background_meta SET value = '99' WHERE {quote}key{quote} = 'oldest_reader'")
    for verb in OWN_VERBS.values():
        with opened(url) as adapter, pytest.raises(SchemaTooNew, match="99"):
            verb(adapter)
    with opened(url) as adapter, session(url) as made:
        with pytest.raises(SchemaTooNew, match="upgrade sapwood"):
            adapter.enqueue([DRAFT], connection=made)
        made.commit()
    for table in ("jobs", "workers"):
        assert execute(url, f"SELECT count(*) FROM background_{table}") == [(0,)]


@pytest.mark.parametrize("server", SERVERS)
def test_tables_of_an_earlier_release_are_named_and_how_to_mend_them(server, database_url):
    url = migrated(database_url(server))
    execute(url, "ALTER TABLE background_jobs DROP COLUMN deaths")
    for verb in (OWN_VERBS["enqueue"], OWN_VERBS["jobs"]):
        with opened(url) as adapter, pytest.raises(SchemaOutdated, match=r"deaths.*sapwood migrate"):
            verb(adapter)
    with (
        opened(url) as adapter,
        session(url) as made,
        pytest.raises(SchemaOutdated, match=r"deaths.*sapwood migrate"),
    ):
        adapter.enqueue([DRAFT], connection=made)


@pytest.mark.parametrize("server", SERVERS)
def test_a_table_that_a_later_release_has_added_is_named_too(server, database_url):
    url = migrated(database_url(server))
    execute(url, "DROP TABLE background_attempts")
    with opened(url) as adapter, pytest.raises(SchemaMissing, match="sapwood migrate"):
        adapter.attempts(1)


def test_the_first_joined_job_brings_an_older_sqlite_file_up_to_this_release(database, monkeypatch):
    migrated(database)
    execute(database, "ALTER TABLE background_jobs DROP COLUMN unknown_since")

    def add(connection, tables):
        migrations._add_columns(connection, tables.jobs, "unknown_since")

    monkeypatch.setattr(migrations, "STEPS", (*migrations.STEPS, migrations.Step("as a later release has it", add)))
    monkeypatch.setattr(migrations, "SCHEMA_VERSION", len(migrations.STEPS))
    with opened(database) as adapter, session(database) as made:
        adapter.enqueue([DRAFT], connection=made)
        made.commit()
        assert len(adapter.jobs()) == 1


def test_a_sqlite_file_that_lacks_a_column_for_no_known_reason_is_named(database):
    migrated(database)
    execute(database, "ALTER TABLE background_jobs DROP COLUMN unknown_since")
    with opened(database) as adapter, pytest.raises(SchemaOutdated, match=r"unknown_since.*sapwood migrate"):
        adapter.jobs()

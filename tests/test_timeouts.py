"""What takes too long on a server is ended, and repeated as a whole or told by name."""

import threading
from contextlib import contextmanager

import pytest
from sqlalchemy import NullPool, create_engine, text

from sapwood.adapters import migrations
from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
from sapwood.errors import StoreUnavailable
from sapwood.record import JobDraft, JobState

DRAFT = JobDraft(job="m:J", args="{}")
SERVERS = ["postgresql", "mysql"]
LIMIT = {"postgresql": "SELECT current_setting('statement_timeout')", "mysql": "SELECT @@max_statement_time"}
on_servers = pytest.mark.parametrize("server", SERVERS)


@pytest.fixture
def adapter(server, database_url):
    adapter = SQLAlchemyAdapter(database_url(server))
    adapter.migrate()
    yield adapter
    adapter.close()


@pytest.fixture
def other(adapter):
    """A connection of somebody else, in a transaction."""
    with create_engine(adapter._dialect.url, poolclass=NullPool).connect() as made:
        yield made


@pytest.fixture
def conflicts(adapter, monkeypatch):
    """Count the conflicts that the adapter notices."""
    noticed = threading.Semaphore(0)
    is_conflict = adapter._dialect.is_conflict

    def noticing(error):
        found = is_conflict(error)
        if found:
            noticed.release()
        return found

    monkeypatch.setattr(adapter._dialect, "is_conflict", noticing)
    return noticed


@contextmanager
def meanwhile(verb):
    """Run a verb in a thread of its own; at the end wait for what it returns, which is put into a list."""
    returned = []
    thread = threading.Thread(target=lambda: returned.append(verb()))
    thread.start()
    yield returned
    thread.join(30)


def is_waiting(other, server):
    """Say whether somebody waits for a lock."""
    asked = {
        "postgresql": "SELECT count(*) FROM pg_locks WHERE NOT granted",
        "mysql": "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'",
    }
    return other.scalar(text(asked[server])) > 0


@on_servers
def test_a_statement_that_takes_too_long_is_ended_and_named(server, adapter):
    soon = {"postgresql": "SET LOCAL statement_timeout = '50ms'", "mysql": "SET SESSION max_statement_time = 0.05"}
    sleep = {"postgresql": "SELECT pg_sleep(30)", "mysql": "SELECT SLEEP(30)"}

    def take_too_long():
        with adapter._reading() as connection:
            assert str(connection.exec_driver_sql(LIMIT[server]).scalar()).startswith("5")
            # Not to wait for as long as that.
            connection.detach()
            connection.exec_driver_sql(soon[server])
            connection.exec_driver_sql(sleep[server])

    with pytest.raises(StoreUnavailable, match="took too long and was ended") as told:
        take_too_long()
    assert "timeout" in told.value.why or "max_statement_time" in told.value.why
    assert told.value.mend


@on_servers
def test_what_concerns_all_rows_or_the_tables_may_take_its_time(server, adapter, monkeypatch):
    limits = []

    def note(connection, _tables):
        limits.append(float(connection.exec_driver_sql(LIMIT[server]).scalar()))
        return ()

    monkeypatch.setattr(migrations, "migrate", note)
    adapter.migrate()
    assert limits == [0]
    adapter.enqueue([DRAFT])
    with adapter._writing() as connection:
        for statement in REFUSING[server]:
            connection.exec_driver_sql(statement)
    with pytest.raises(Exception, match="in haste"):
        adapter.delete(adapter.jobs())
    assert adapter.clear() == 1
    with adapter._reading() as connection:
        assert str(connection.exec_driver_sql(LIMIT[server]).scalar()).startswith("5"), "the next is limited again"


REFUSING = {
    "postgresql": [
        """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF current_setting('statement_timeout') <> '0' THEN RAISE EXCEPTION 'in haste'; END IF;
            RETURN OLD;
        END $$
        """,
        "CREATE TRIGGER refusing BEFORE DELETE ON background_jobs FOR EACH ROW EXECUTE FUNCTION refuse()",
    ],
    "mysql": [
        """
        CREATE TRIGGER refusing BEFORE DELETE ON background_jobs FOR EACH ROW
        IF @@max_statement_time <> 0 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'in haste'; END IF
        """,
    ],
}
"""Refuse to delete a job while statements have a limit."""


@on_servers
def test_a_verb_that_waited_too_long_for_a_row_is_repeated_until_the_row_is_free(server, adapter, other, conflicts):
    adapter.enqueue([DRAFT])
    (record,) = adapter.jobs()
    other.execute(text("SELECT id FROM background_jobs FOR UPDATE"))
    with meanwhile(lambda: adapter.cancel([record])) as changed:
        assert conflicts.acquire(timeout=20), "it does not wait for ever"
        other.rollback()
    assert changed == [{record.id}]
    assert adapter.get(record.id).state is JobState.CANCELLED


@on_servers
def test_a_lock_on_the_table_that_is_kept_is_named(server, adapter, other):
    lock = {"postgresql": "LOCK TABLE background_jobs", "mysql": "LOCK TABLES background_jobs WRITE"}
    other.execute(text(lock[server]))
    with pytest.raises(StoreUnavailable, match="another transaction was in the way") as told:
        adapter.counts()
    assert "lock" in told.value.why.lower()
    assert told.value.mend
    if server == "mysql":
        other.execute(text("UNLOCK TABLES"))
    other.rollback()
    assert adapter.counts() == {}


@on_servers
def test_who_gives_way_in_a_dead_lock_begins_anew(server, adapter, other, conflicts):
    adapter.enqueue([DRAFT, DRAFT])
    first, second = adapter.jobs()
    if server == "postgresql":
        # It is ours that notices first, and so gives way.
        other.execute(text("SET deadlock_timeout = '60s'"))
    else:
        # Who has written less gives way.
        other.execute(text("CREATE TEMPORARY TABLE weight (n INTEGER) ENGINE=InnoDB"))
        other.execute(text("INSERT INTO weight SELECT seq FROM seq_1_to_1000"))
    lock = text("SELECT id FROM background_jobs WHERE id = :id FOR UPDATE")
    other.execute(lock, {"id": second.id})
    with meanwhile(lambda: adapter.cancel([first, second])) as changed:
        with create_engine(adapter._dialect.url, poolclass=NullPool).connect() as looking:
            while not is_waiting(looking, server):
                looking.rollback()
        other.execute(lock, {"id": first.id})
        assert conflicts.acquire(timeout=20)
        other.rollback()
    assert changed == [{first.id, second.id}]


@on_servers
def test_a_conflict_that_does_not_end_is_told_after_some_repeats(server, adapter, monkeypatch):
    verbs = []

    def failing(*_):
        verbs.append("verb")
        with adapter._named_errors(), adapter._reading() as connection:
            connection.exec_driver_sql(RAISING[server])

    monkeypatch.setattr(adapter, "_insert", failing)
    with pytest.raises(StoreUnavailable, match="another transaction was in the way"):
        adapter.enqueue([DRAFT])
    assert len(verbs) == 9


RAISING = {
    "postgresql": "DO $$ BEGIN RAISE EXCEPTION 'made up' USING ERRCODE = '40001'; END $$",
    "mysql": "SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'made up'",
}

"""A store that cannot serve says why, by a named error, on every database."""

import sqlite3

import pytest
from sqlalchemy import create_engine, event, make_url

from conftest import worker_record
from sapwood.adapters import locks
from sapwood.adapters.dialects import sqlite as sqlite_dialect
from sapwood.adapters.dialects.troubles import named
from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
from sapwood.errors import SapwoodError, StoreError, StoreFull, StoreReadOnly, StoreUnavailable, UnsupportedStore
from sapwood.record import JobDraft

DRAFT = JobDraft(job="a", args="{}")
LONG = JobDraft(job="a", args=f'{{"text": "{"x" * 20_000}"}}')

POSTGRESQL = [
    ("53100", StoreFull, "no room"),
    ("25006", StoreReadOnly, "cannot be written"),
    ("53300", StoreUnavailable, "no further connection"),
    ("57P01", StoreUnavailable, "stops"),
    ("57P03", StoreUnavailable, "stops"),
    ("53200", StoreUnavailable, "memory"),
    ("58030", StoreUnavailable, "disk"),
    ("08006", StoreUnavailable, "reached"),
]
MARIADB = [
    (1021, "Disk full (/var/lib/mysql); waiting for someone to free some space", StoreFull, "no room"),
    (1114, "The table 'background_jobs' is full", StoreFull, "no room"),
    (1030, 'Got error 28 "No space left on device" from storage engine', StoreFull, "no room"),
    (1030, 'Got error 5 "Input/output error" from storage engine', StoreUnavailable, "disk"),
    (1036, "Table 'background_jobs' is read only", StoreReadOnly, "cannot be written"),
    (1290, "running with the --read-only option", StoreReadOnly, "cannot be written"),
    (1792, "Cannot execute statement in a READ ONLY transaction", StoreReadOnly, "cannot be written"),
    (1836, "Running in read-only mode", StoreReadOnly, "cannot be written"),
    (1040, "Too many connections", StoreUnavailable, "no further connection"),
    (1053, "Server shutdown in progress", StoreUnavailable, "stops"),
    (1927, "Connection was killed", StoreUnavailable, "stops"),
    (1041, "Out of memory", StoreUnavailable, "memory"),
    (2006, "MySQL server has gone away", StoreUnavailable, "reached"),
    (2013, "Lost connection to MySQL server during query", StoreUnavailable, "reached"),
]


_FUNCTION = "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$"
_TRIGGER = "CREATE TRIGGER refuse BEFORE INSERT ON background_jobs EXECUTE FUNCTION refuse()"


@pytest.fixture
def opened(database_url):
    """Make a migrated adapter on a kind of database, or on a URL; closed after the test."""
    made = []

    def make(kind, url=None):
        adapter = SQLAlchemyAdapter(url or database_url(kind))
        made.append(adapter)
        if url is None:
            adapter.migrate()
        return adapter

    yield make
    for adapter in made:
        adapter.close()


def told(error: SapwoodError, *words: str) -> bool:
    """Say whether an error has all its parts, and these words."""
    return bool(error.what and error.why and error.mend) and all(word in str(error) for word in words)


def executed(adapter, *statements):
    with adapter._connected().begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


# --- SQLite -------------------------------------------------------------------------------------------------------


def full(adapter):
    """Let a database not grow by a page; its file system says the same when it is full."""
    event.listen(adapter._engine, "connect", lambda connection, _: connection.execute("PRAGMA max_page_count = 1"))
    adapter._engine.dispose()


def test_a_full_file_is_named_and_takes_jobs_again_when_there_is_room(adapter):
    adapter.migrate()
    full(adapter)
    with pytest.raises(StoreFull) as error:
        adapter.enqueue([LONG])
    assert told(error.value, "has no room left", "make room")
    executed(adapter, "PRAGMA max_page_count = 100000")
    assert len(adapter.enqueue([LONG])) == 1


def test_a_full_file_is_named_in_the_callers_transaction_too(adapter, database):
    adapter.migrate()
    connection = sqlite3.connect(make_url(database).database)
    connection.execute("PRAGMA max_page_count = 1")
    with pytest.raises(StoreFull):
        adapter.enqueue([LONG], connection=connection)
    connection.rollback()
    connection.close()


def test_a_connection_that_cannot_write_is_not_used_again(adapter):
    adapter.migrate()
    is_mounted_read_only = True

    def opened(connection, _):
        if is_mounted_read_only:
            connection.execute("PRAGMA query_only = 1")

    event.listen(adapter._engine, "connect", opened)
    adapter._engine.dispose()
    with pytest.raises(StoreReadOnly):
        adapter.enqueue([DRAFT])
    is_mounted_read_only = False
    assert len(adapter.enqueue([DRAFT])) == 1


def test_a_lock_that_another_program_keeps_is_named(monkeypatch, adapter, database):
    monkeypatch.setattr(sqlite_dialect, "_ARGUMENTS", {**sqlite_dialect._ARGUMENTS, "timeout": 0})
    adapter.migrate()
    other = sqlite3.connect(make_url(database).database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable) as error:
        adapter.enqueue([DRAFT])
    assert told(error.value, "locked by another program")
    other.close()
    assert len(adapter.enqueue([DRAFT])) == 1


def test_a_file_that_is_damaged_is_named(adapter, tmp_path):
    adapter.enqueue([DRAFT] * 200)
    adapter.close()
    file = tmp_path / "jobs.db"
    page = 4096
    file.write_bytes(file.read_bytes()[:page] + b"\xaa" * (file.stat().st_size - page))
    with pytest.raises(UnsupportedStore, match="malformed"):
        adapter.enqueue([DRAFT])


@pytest.mark.parametrize(
    ("number", "kind"),
    [(28, StoreFull), (122, StoreFull), (30, StoreReadOnly), (5, StoreUnavailable), (13, StoreUnavailable)],
)
def test_what_the_system_says_of_the_files_beside_a_database_is_named(number, kind):
    with pytest.raises(kind) as error, named("sqlite:///jobs.db"):
        raise OSError(number, "as the system words it")
    assert told(error.value, "as the system words it")


def test_no_room_for_a_workers_file_is_named(monkeypatch, adapter):
    adapter.migrate()

    def take(folder, worker):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(locks.WorkerLocks, "take", take)
    with pytest.raises(StoreFull):
        adapter.register(worker_record())


# --- servers ------------------------------------------------------------------------------------------------------


def misnamed(adapter, cases, refuse, allow):
    """Have a server refuse a job for each reason; return those whose error is not as it should be."""
    wrong = []
    for reason, kind, *words in cases:
        executed(adapter, *refuse(reason))
        with pytest.raises(StoreError) as error:
            adapter.enqueue([DRAFT])
        if type(error.value) is not kind or not told(error.value, *words):
            wrong.append((reason, error.value))
        executed(adapter, allow)
        assert len(adapter.enqueue([DRAFT])) == 1
    return wrong


def test_what_postgresql_reports_is_named(opened):
    adapter = opened("postgresql")

    def refuse(code):
        return (
            f"{_FUNCTION} BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '{code}'; END $$",
            _TRIGGER,
        )

    assert misnamed(adapter, POSTGRESQL, refuse, "DROP TRIGGER refuse ON background_jobs") == []


def test_what_mariadb_reports_is_named(opened):
    adapter = opened("mysql")

    def refuse(reason):
        number, said = reason
        said = said.replace("'", "''")
        signal = f"SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {number}, MESSAGE_TEXT = '{said}'"
        return (f"CREATE TRIGGER refuse BEFORE INSERT ON background_jobs FOR EACH ROW {signal}",)

    cases = [((number, said), kind, words, said) for number, said, kind, words in MARIADB]
    assert misnamed(adapter, cases, refuse, "DROP TRIGGER refuse") == []


def test_a_read_only_postgresql_is_named_and_takes_jobs_again(opened):
    adapter = opened("postgresql")
    name = adapter._dialect.url.database
    executed(adapter, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    adapter.close()
    with pytest.raises(StoreReadOnly) as error:
        adapter.enqueue([DRAFT])
    assert told(error.value, "cannot be written")
    with adapter._connected().begin() as connection:
        connection.exec_driver_sql("SET TRANSACTION READ WRITE")
        connection.exec_driver_sql(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    adapter.close()
    assert len(adapter.enqueue([DRAFT])) == 1


def test_a_connection_that_postgresql_ends_is_named_and_the_next_is_good(opened):
    adapter = opened("postgresql")
    executed(
        adapter,
        f"{_FUNCTION} BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(60); RETURN NULL; END $$",
        _TRIGGER,
    )
    with pytest.raises(StoreUnavailable) as error:
        adapter.enqueue([DRAFT])
    assert told(error.value, "terminating connection")
    executed(adapter, "DROP TRIGGER refuse ON background_jobs")
    assert len(adapter.enqueue([DRAFT])) == 1


def _limited_user(adapter, kind):
    """Make an account that may have no connection, or one; return the URL by which it connects."""
    url = adapter._dialect.url
    account = f"limited_{url.database[-12:]}"
    if kind == "postgresql":
        made, gone = [f"CREATE ROLE {account} LOGIN PASSWORD 'x' CONNECTION LIMIT 0"], f"DROP ROLE {account}"
    else:
        who = f"'{account}'@'127.0.0.1'"
        made = [
            f"CREATE USER {who} IDENTIFIED BY 'x' WITH MAX_USER_CONNECTIONS 1",
            f"GRANT ALL ON {url.database}.* TO {who}",
        ]
        gone = f"DROP USER {who}"
    executed(adapter, *made)
    return url.set(username=account, password="x"), gone


@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
def test_a_server_that_takes_no_further_connection_is_named(opened, kind):
    owner = opened(kind)
    url, gone = _limited_user(owner, kind)
    adapter = opened(kind, url)
    holder = create_engine(url)
    try:
        held = holder.connect() if kind == "mysql" else None
        with pytest.raises(StoreUnavailable) as error:
            adapter.enqueue([DRAFT])
        assert told(error.value, "takes no further connection", "max_connections")
        assert "x@" not in str(error.value)
    finally:
        if held is not None:
            held.close()
        holder.dispose()
        adapter.close()
        executed(owner, gone)


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        ("postgresql", "postgresql://who:secret@127.0.0.1:1/none"),
        ("mysql", "mysql://who:secret@127.0.0.1:1/none"),
    ],
)
def test_a_server_that_is_not_there_is_named_without_its_password(opened, kind, url):
    with pytest.raises(StoreUnavailable) as error:
        opened(kind, url).enqueue([DRAFT])
    assert told(error.value, "cannot be reached", "127.0.0.1")
    assert "secret" not in str(error.value)


def test_a_read_only_mariadb_is_named(opened):
    adapter = opened("mysql")
    url, gone = _limited_user(adapter, "mysql")
    limited = opened("mysql", url)
    assert len(limited.enqueue([DRAFT])) == 1
    executed(adapter, "SET GLOBAL read_only = 1")
    try:
        with pytest.raises(StoreReadOnly) as error:
            limited.enqueue([DRAFT])
        assert told(error.value, "cannot be written")
    finally:
        executed(adapter, "SET GLOBAL read_only = 0")
    assert len(limited.enqueue([DRAFT])) == 1
    limited.close()
    executed(adapter, gone)

"""Joining the caller's transaction, on every kind of connection: its commit and rollback decide, ours never."""

import asyncio
import sqlite3
import sys
import threading
from collections.abc import Callable
from contextlib import closing

import psycopg
import psycopg.rows
import pymysql
import pymysql.cursors
import pytest
from msgspec import Struct
from sqlalchemy import Engine, NullPool, create_engine, event, make_url, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from sapwood.adapters.joining import AfterCommit, borrowed
from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
from sapwood.errors import ForeignConnection, SchemaMissing, UnsupportedConnection
from sapwood.record import JobDraft

DRAFT = JobDraft(job="shop.jobs:Mail", args="{}")


# --- kinds of connections ---------------------------------------------------------------------------------------------


class Kind(Struct, frozen=True):
    """A kind of connection."""

    server: str

    during: Callable[..., None]
    """Open one to a URL, call a function with it, end the transaction, close it."""

    settings: Callable[..., tuple] = lambda _: ()
    """What must stay as it is."""


def session(driver, make=Session, **options):
    def during(url, use, end):
        engine = create_engine(make_url(url).set(drivername=driver), poolclass=NullPool, **options)
        with closing(make(engine)) as made:
            use(made)
            getattr(made, end)()

    return during


def connection(driver, **options):
    return session(driver, lambda engine: engine.connect(), **options)


def asynchronous(driver, make):
    def during(url, use, end):
        async def main():
            engine = create_async_engine(make_url(url).set(drivername=driver), poolclass=NullPool)
            async with make(engine) as made:
                await made.run_sync(use)
                await getattr(made, end)()
            await engine.dispose()

        asyncio.run(main())

    return during


def bare(connect, begin=None, wrap=lambda made: made):
    def during(url, use, end):
        with closing(connect(make_url(url))) as made:
            if begin:
                made.cursor().execute(begin)
            use(wrap(made))
            if begin:
                made.cursor().execute(end)
            else:
                getattr(made, end)()

    return during


def sqlite3_connect(row_factory=None, **options):
    def connect(url):
        made = sqlite3.connect(url.database, **options)
        made.row_factory = row_factory
        return made

    return connect


def psycopg_connect(**options):
    def connect(url):
        return psycopg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False), **options)

    return connect


def pymysql_connect(**options):
    def connect(url):
        place = {"unix_socket": url.query["unix_socket"]} if "unix_socket" in url.query else {}
        if url.port:
            place["port"] = url.port
        return pymysql.connect(
            host=url.host, user=url.username, password=url.password or "", database=url.database, **place, **options
        )

    return connect


def named(cursor, row):
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}


class Wrapper:
    """What frameworks such as Django hand out: it opens its connection when that is first needed."""

    def __init__(self, made):
        self._made = made
        self.connection = None

    def ensure_connection(self):
        self.connection = self._made

    def cursor(self):
        return self._made.cursor()


def of_sqlite3(made):
    return made.isolation_level, made.row_factory, made.in_transaction, getattr(made, "autocommit", None)


def of_psycopg(made):
    return made.autocommit, made.isolation_level, made.row_factory, made.info.transaction_status, made.closed


def of_pymysql(made):
    return made.get_autocommit(), made.cursorclass, made.open


def scoped(engine):
    return scoped_session(sessionmaker(engine))


KINDS = {
    "sqlite-session": Kind("sqlite", session("sqlite")),
    "sqlite-scoped": Kind("sqlite", session("sqlite", scoped)),
    "sqlite-connection": Kind("sqlite", connection("sqlite")),
    "sqlite-aiosqlite": Kind("sqlite", asynchronous("sqlite+aiosqlite", AsyncSession)),
    "sqlite3": Kind("sqlite", bare(sqlite3_connect()), of_sqlite3),
    "sqlite3-row": Kind("sqlite", bare(sqlite3_connect(sqlite3.Row)), of_sqlite3),
    "sqlite3-dict": Kind("sqlite", bare(sqlite3_connect(named)), of_sqlite3),
    "sqlite3-begin": Kind("sqlite", bare(sqlite3_connect(isolation_level=None), begin="BEGIN"), of_sqlite3),
    "sqlite3-wrapped": Kind("sqlite", bare(sqlite3_connect(), wrap=Wrapper)),
    "postgresql-psycopg": Kind("postgresql", session("postgresql+psycopg")),
    "postgresql-psycopg2": Kind("postgresql", session("postgresql+psycopg2")),
    "postgresql-connection": Kind("postgresql", connection("postgresql+psycopg")),
    "postgresql-psycopg-async": Kind("postgresql", asynchronous("postgresql+psycopg", AsyncSession)),
    "postgresql-asyncpg": Kind("postgresql", asynchronous("postgresql+asyncpg", AsyncSession)),
    "postgresql-asyncpg-connection": Kind(
        "postgresql", asynchronous("postgresql+asyncpg", lambda engine: engine.connect())
    ),
    "psycopg": Kind("postgresql", bare(psycopg_connect()), of_psycopg),
    "psycopg-dict": Kind("postgresql", bare(psycopg_connect(row_factory=psycopg.rows.dict_row)), of_psycopg),
    "psycopg-raw": Kind("postgresql", bare(psycopg_connect(cursor_factory=psycopg.RawCursor)), of_psycopg),
    "psycopg-begin": Kind("postgresql", bare(psycopg_connect(autocommit=True), begin="BEGIN"), of_psycopg),
    "mysql-pymysql": Kind("mysql", session("mysql+pymysql")),
    "mysql-mariadb": Kind("mysql", session("mariadb+pymysql")),
    "mysql-connection": Kind("mysql", connection("mysql+pymysql")),
    "mysql-serializable": Kind("mysql", session("mysql+pymysql", isolation_level="SERIALIZABLE")),
    "mysql-aiomysql": Kind("mysql", asynchronous("mysql+aiomysql", AsyncSession)),
    "mysql-asyncmy": Kind("mysql", asynchronous("mysql+asyncmy", AsyncSession)),
    "pymysql": Kind("mysql", bare(pymysql_connect()), of_pymysql),
    "pymysql-dict": Kind("mysql", bare(pymysql_connect(cursorclass=pymysql.cursors.DictCursor)), of_pymysql),
    "pymysql-begin": Kind("mysql", bare(pymysql_connect(autocommit=True), begin="BEGIN"), of_pymysql),
}
if sys.version_info >= (3, 12):
    KINDS["sqlite3-autocommit-off"] = Kind("sqlite", bare(sqlite3_connect(autocommit=False)), of_sqlite3)


def execute(made, sql):
    """Say something on the caller's connection."""
    if hasattr(made, "in_nested_transaction") or isinstance(made, scoped_session):
        made.execute(text(sql))
    else:
        made.cursor().execute(sql)


def ask(url, sql):
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as asking:
        return asking.exec_driver_sql(sql).scalar_one()


class Place:
    """A database with a table of the application's, and an adapter on it."""

    def __init__(self, url):
        self.url = url
        self.adapter = SQLAlchemyAdapter(url)
        with create_engine(url, poolclass=NullPool).begin() as making:
            making.exec_driver_sql("CREATE TABLE users (id INTEGER)")

    def users(self):
        return ask(self.url, "SELECT count(*) FROM users")

    def jobs(self):
        return self.adapter.jobs()


@pytest.fixture
def place_of(database_url):
    places = []

    def make(server, *, migrated=True):
        places.append(Place(database_url(server)))
        if migrated:
            places[-1].adapter.migrate()
        return places[-1]

    yield make
    for place in places:
        place.adapter.close()


def on(*servers):
    return pytest.mark.parametrize("kind", [pytest.param(k, id=n) for n, k in KINDS.items() if k.server in servers])


EVERY = on("sqlite", "postgresql", "mysql")
SERVERS = on("postgresql", "mysql")
ENDS = pytest.mark.parametrize("end", ["commit", "rollback"])


# --- one fate ---------------------------------------------------------------------------------------------------------


@EVERY
@ENDS
def test_a_joined_job_shares_the_fate_of_the_callers_transaction(kind, end, place_of):
    place = place_of(kind.server)
    ids = []

    def use(made):
        execute(made, "INSERT INTO users VALUES (1)")
        before = kind.settings(made)
        ids.extend(place.adapter.enqueue([DRAFT], connection=made))
        assert kind.settings(made) == before
        execute(made, "INSERT INTO users VALUES (2)")
        ids.extend(place.adapter.enqueue([DRAFT, DRAFT], connection=made))
        assert place.jobs() == [], "nobody sees them before the commit"

    kind.during(place.url, use, end)
    stored = [record.id for record in place.jobs()]
    assert (sorted(stored), place.users()) == ((ids, 2) if end == "commit" else ([], 0))


@EVERY
@ENDS
def test_a_job_may_be_the_first_statement_of_the_transaction(kind, end, place_of):
    place = place_of(kind.server)
    kind.during(place.url, lambda made: place.adapter.enqueue([DRAFT], connection=made), end)
    assert len(place.jobs()) == (1 if end == "commit" else 0)


@EVERY
def test_thousands_of_drafts_take_few_statements_and_keep_their_order(kind, place_of):
    place = place_of(kind.server)
    drafts = [JobDraft(job="shop.jobs:Mail", args=f"[{number}]", queue="bulk") for number in range(2_500)]
    ids, said = [], []

    def note(_connection, _cursor, statement, *_):
        said.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        kind.during(place.url, lambda made: ids.extend(place.adapter.enqueue(drafts, connection=made)), "commit")
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    inserts = [statement for statement in said if statement.startswith("INSERT")]
    assert 0 < len(inserts) <= 10
    arguments = {record.id: record.args for record in place.adapter.jobs(limit=10_000)}
    assert [arguments[job_id] for job_id in ids] == [draft.args for draft in drafts]


@EVERY
def test_a_joined_enqueue_opens_no_connection_of_its_own(kind, place_of):
    place = place_of(kind.server)
    place.adapter.close()

    def use(made):
        place.adapter.enqueue([DRAFT], connection=made)
        assert place.adapter._engine is None

    kind.during(place.url, use, "commit")
    assert len(place.jobs()) == 1


# --- without tables ---------------------------------------------------------------------------------------------------


@SERVERS
def test_missing_tables_are_told_and_the_callers_transaction_goes_on(kind, place_of):
    place = place_of(kind.server, migrated=False)

    def use(made):
        execute(made, "INSERT INTO users VALUES (1)")
        for _ in range(2):
            with pytest.raises(SchemaMissing, match="sapwood migrate"):
                place.adapter.enqueue([DRAFT], connection=made)
        execute(made, "INSERT INTO users VALUES (2)")

    kind.during(place.url, use, "commit")
    assert place.users() == 2


@on("sqlite")
@ENDS
@pytest.mark.parametrize("before", [True, False], ids=["after a write", "at once"])
def test_the_first_job_ever_makes_the_tables_in_the_callers_transaction(kind, end, before, place_of):
    place = place_of(kind.server, migrated=False)

    def use(made):
        if before:
            execute(made, "INSERT INTO users VALUES (1)")
        assert place.adapter.enqueue([DRAFT, DRAFT], connection=made) == (1, 2)

    kind.during(place.url, use, end)
    tables = ask(place.url, "SELECT count(*) FROM sqlite_master WHERE name = 'background_jobs'")
    assert tables == (1 if end == "commit" else 0)
    assert len(place.jobs()) == (2 if end == "commit" else 0)


@pytest.mark.parametrize("server", ["postgresql", "mysql"])
def test_tables_that_come_later_are_found_on_the_same_connection(server, place_of):
    place = place_of(server, migrated=False)
    with Session(create_engine(place.url, poolclass=NullPool)) as made:
        with pytest.raises(SchemaMissing):
            place.adapter.enqueue([DRAFT], connection=made)
        made.rollback()
        place.adapter.migrate()
        place.adapter.enqueue([DRAFT], connection=made)
        made.commit()
    assert len(place.jobs()) == 1


# --- somewhere else ---------------------------------------------------------------------------------------------------


@EVERY
def test_a_connection_to_another_database_is_refused_and_its_transaction_goes_on(kind, place_of):
    place, other = place_of(kind.server), place_of(kind.server)
    assert place.jobs() == []

    def use(made):
        execute(made, "INSERT INTO users VALUES (1)")
        for _ in range(2):
            with pytest.raises(ForeignConnection, match="leads to"):
                place.adapter.enqueue([DRAFT], connection=made)
        execute(made, "INSERT INTO users VALUES (2)")

    kind.during(other.url, use, "commit")
    assert (other.users(), other.jobs()) == (2, [])


@pytest.mark.parametrize("server", ["postgresql", "mysql"])
def test_a_foreign_connection_that_could_not_be_known_is_told_once_when_the_adapter_opens_its_own(server, place_of):
    place, other = place_of(server), place_of(server)
    place.adapter.close()
    with Session(create_engine(other.url, poolclass=NullPool)) as made:
        place.adapter.enqueue([DRAFT], connection=made)
        made.rollback()
        with pytest.raises(ForeignConnection, match="were enqueued on a connection to another database"):
            place.jobs()
        assert place.jobs() == []
        with pytest.raises(ForeignConnection):
            place.adapter.enqueue([DRAFT], connection=made)


@pytest.mark.parametrize("server", ["postgresql", "mysql"])
def test_two_databases_on_one_adapter_are_told_though_its_own_is_not_known(server, place_of):
    place, other = place_of(server), place_of(server)
    place.adapter.close()
    with Session(create_engine(place.url, poolclass=NullPool)) as made:
        place.adapter.enqueue([DRAFT], connection=made)
    with (
        Session(create_engine(other.url, poolclass=NullPool)) as made,
        pytest.raises(ForeignConnection, match="leads to another database"),
    ):
        place.adapter.enqueue([DRAFT], connection=made)


@pytest.mark.parametrize("server", ["postgresql", "mysql"])
def test_an_engine_that_is_turned_to_another_database_is_found_out(server, place_of):
    place, other = place_of(server), place_of(server)
    assert place.jobs() == []
    engine = create_engine(place.url, poolclass=NullPool)
    with Session(engine) as made:
        place.adapter.enqueue([DRAFT], connection=made)
        made.commit()

    @event.listens_for(engine, "do_connect")
    def turn(dialect, _record, arguments, options):
        elsewhere, there = dialect.create_connect_args(make_url(other.url))
        arguments[:] = elsewhere
        options.update(there)

    with Session(engine) as made, pytest.raises(ForeignConnection):
        place.adapter.enqueue([DRAFT], connection=made)


@pytest.mark.parametrize(
    ("server", "theirs"), [("sqlite", "postgresql"), ("postgresql", "sqlite"), ("mysql", "sqlite")]
)
def test_a_connection_to_another_kind_of_database_is_refused_and_goes_on(server, theirs, place_of):
    place, other = place_of(server), place_of(theirs)
    with create_engine(other.url, poolclass=NullPool).connect() as made:
        with pytest.raises(ForeignConnection, match=theirs):
            place.adapter.enqueue([DRAFT], connection=made)
        assert made.scalar(text("SELECT count(*) FROM users")) == 0


def test_an_asynchronous_connection_of_a_driver_is_refused_by_name(place_of):
    place = place_of("postgresql")
    url = make_url(place.url).set(drivername="postgresql").render_as_string(hide_password=False)

    async def main():
        async with await psycopg.AsyncConnection.connect(url) as made:
            with pytest.raises(UnsupportedConnection, match="AsyncConnection cannot be joined"):
                place.adapter.enqueue([DRAFT], connection=made)

    asyncio.run(main())


# --- what the caller has set ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", ["sqlite", "postgresql"])
def test_a_map_of_the_callers_schemas_is_not_meant_for_our_tables(server, place_of):
    place = place_of(server)
    engine = create_engine(place.url, poolclass=NullPool, execution_options={"schema_translate_map": {None: "tenant"}})
    with engine.begin() as made:
        assert len(place.adapter.enqueue([DRAFT, DRAFT], connection=made)) == 2
    assert len(place.jobs()) == 2


@pytest.mark.parametrize("server", ["postgresql", "mysql"])
def test_a_connection_that_streams_its_results_is_joined(server, place_of):
    place = place_of(server)
    engine = create_engine(place.url, poolclass=NullPool, execution_options={"stream_results": True})
    with engine.begin() as made:
        assert len(place.adapter.enqueue([DRAFT], connection=made)) == 1
        assert len(place.adapter.enqueue([DRAFT, DRAFT], connection=made)) == 2
    assert len(place.jobs()) == 3


@pytest.mark.parametrize("server", ["sqlite", "postgresql", "mysql"])
def test_an_engine_that_must_not_return_many_rows_of_an_insert_stores_them_one_by_one(server, place_of):
    place = place_of(server)
    engine = create_engine(place.url, poolclass=NullPool, use_insertmanyvalues=False)
    with engine.begin() as made:
        ids = place.adapter.enqueue([DRAFT, DRAFT, DRAFT], connection=made)
    assert sorted(record.id for record in place.jobs()) == list(ids)


def test_on_a_server_without_returning_the_ids_follow_the_first(place_of):
    place = place_of("mysql")
    engine = create_engine(place.url, poolclass=NullPool)
    drafts = [JobDraft(job="shop.jobs:Mail", args=f"[{number}]") for number in range(2_500)]
    with engine.begin() as made:
        # As it is on MySQL, which cannot return what it inserts.
        engine.dialect.insert_returning = False
        made.exec_driver_sql("SET SESSION auto_increment_increment = 3")
        ids = place.adapter.enqueue(drafts, connection=made)
    arguments = {record.id: record.args for record in place.adapter.jobs(limit=10_000)}
    assert [arguments[job_id] for job_id in ids] == [draft.args for draft in drafts]


def test_greeting_a_sqlite_connection_takes_no_snapshot_that_would_keep_it_from_writing(place_of):
    place = place_of("sqlite")
    path = make_url(place.url).database
    with closing(sqlite3.connect(path, isolation_level=None)) as made:
        made.execute("BEGIN")
        place.adapter._dialect.greet(borrowed(made).connection, place.adapter.tables.meta)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("INSERT INTO users VALUES (1)")
        place.adapter.enqueue([DRAFT], connection=made)
        made.execute("COMMIT")
    assert len(place.jobs()) == 1


# --- after the commit -------------------------------------------------------------------------------------------------


@pytest.fixture
def told():
    return []


@pytest.fixture
def after_commit(told):
    return AfterCommit(lambda: told.append("told"))


@pytest.fixture
def made():
    with Session(create_engine("sqlite://")) as made:
        made.execute(text("CREATE TABLE users (id INTEGER)"))
        made.commit()
        made.connection()
        yield made


def test_listeners_are_told_once_after_the_commit(after_commit, told, made):
    after_commit.expect(made)
    after_commit.expect(made)
    assert told == []
    made.commit()
    assert told == ["told"]
    made.connection()
    made.commit()
    assert told == ["told"], "that transaction had no jobs in it"
    made.connection()
    after_commit.expect(made)
    made.commit()
    assert told == ["told", "told"]


@pytest.mark.parametrize("end", ["rollback", "close"])
def test_what_is_rolled_back_is_told_to_nobody(after_commit, told, made, end):
    after_commit.expect(made)
    getattr(made, end)()
    made.connection()
    made.commit()
    assert told == []


def test_neither_end_of_a_savepoint_counts(after_commit, told, made):
    after_commit.expect(made)
    with made.begin_nested():
        made.execute(text("INSERT INTO users VALUES (1)"))
    made.begin_nested().rollback()
    assert told == []
    made.commit()
    assert told == ["told"]


def test_another_session_is_not_listened_to(after_commit, told, made):
    after_commit.expect(made)
    with Session(made.get_bind()) as other:
        other.connection()
        other.commit()
    assert told == []


def test_a_joined_session_wakes_its_own_process_after_its_commit(place_of):
    place = place_of("mysql")
    woken = threading.Event()
    end = place.adapter.listen(woken.set)
    with Session(create_engine(place.url, poolclass=NullPool)) as made:
        place.adapter.enqueue([DRAFT], connection=made)
        assert not woken.is_set()
        made.commit()
    end()
    assert woken.is_set()


@pytest.mark.parametrize("driver", ["postgresql+psycopg", "postgresql+asyncpg"])
def test_a_joined_session_wakes_other_processes_after_its_commit(driver, place_of):
    place = place_of("postgresql")
    elsewhere = SQLAlchemyAdapter(place.url)
    woken = threading.Event()
    end = elsewhere.listen(woken.set)
    assert woken.wait(30), "it listens"
    woken.clear()
    place.adapter.close()
    during = asynchronous(driver, AsyncSession) if driver.endswith("asyncpg") else session(driver)
    during(place.url, lambda made: place.adapter.enqueue([DRAFT], connection=made), "commit")
    assert woken.wait(30)
    end()
    elsewhere.close()


def test_what_fails_after_the_callers_commit_does_not_reach_the_caller(place_of):
    place = place_of("mysql")

    def fail():
        raise RuntimeError

    end = place.adapter.listen(fail)
    with Session(create_engine(place.url, poolclass=NullPool)) as made:
        place.adapter.enqueue([DRAFT], connection=made)
        made.commit()
    end()
    assert len(place.jobs()) == 1

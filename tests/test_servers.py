"""The servers that other tests rely on: each is real, private, can be crashed, and is gone after the run."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from sqlalchemy import NullPool, create_engine, make_url, text

import servers
from plugin_servers import KINDS, server

PLUGIN = ["-p", "plugin_servers", "-p", "no:randomly", "-p", "no:cacheprovider"]


def run(url, *statements):
    """Run statements in one transaction and return the rows of the last."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        results = [connection.execute(text(statement)) for statement in statements]
        return [tuple(row) for row in results[-1]] if results[-1].returns_rows else []


def own(kind):
    """Return a server that this run has started itself, and may crash."""
    found = server(kind)
    try:
        assert found._own.process
    except servers.Unavailable as reason:
        pytest.skip(str(reason))
    return found


def pytest_in(folder, *arguments, **environment):
    """Begin another run of pytest, on the one test file in a folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", *PLUGIN, *arguments, folder],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_says_which_it_is(kind):
    found = server(kind)
    ((version,),) = run(found.url, "SELECT version()")
    number = found._maker.name.split()[1]
    assert number in version
    assert found.name.split()[0] in {"PostgreSQL", "MariaDB", "MySQL", "PgBouncer"}


@pytest.mark.parametrize("kind", ["sqlite", *KINDS])
def test_databases_share_nothing(kind, database_url):
    here, there = database_url(kind), database_url(kind)
    run(here, "CREATE TABLE kept (n integer)", "INSERT INTO kept VALUES (1)")
    run(there, "CREATE TABLE kept (n integer)")
    assert run(here, "SELECT n FROM kept") == [(1,)]
    assert run(there, "SELECT n FROM kept") == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_database_is_dropped_under_an_open_transaction(kind):
    found = server(kind)
    url = found.new_database()
    run(url, "CREATE TABLE kept (n integer)")
    engine = create_engine(url)
    connection = engine.connect()
    connection.execute(text("INSERT INTO kept VALUES (1)"))
    found.drop_database(url)
    connection.invalidate()
    connection.close()
    engine.dispose()
    names = {"postgresql": "SELECT datname FROM pg_database", "mysql": "SHOW DATABASES"}
    databases = run(found.url, names[make_url(url).get_backend_name()])
    assert databases
    assert (make_url(url).database,) not in databases


@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
def test_what_was_committed_outlives_a_crash_and_what_was_not_does_not(kind, database_url):
    found = own(kind)
    url = database_url(kind)
    run(url, "CREATE TABLE kept (n integer)", "INSERT INTO kept VALUES (1)")
    engine = create_engine(url)
    connection = engine.connect()
    connection.execute(text("INSERT INTO kept VALUES (2)"))
    before = found._own.process.pid
    found.crash()
    connection.invalidate()
    connection.close()
    engine.dispose()
    assert not psutil.pid_exists(before)
    found.start()
    assert run(url, "SELECT n FROM kept") == [(1,)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_server_answers_again_once_started(kind):
    found = own(kind)
    found.stop()
    assert not servers._answers(found._url)
    found.start()
    assert servers._answers(found._url)


def test_pgbouncer_keeps_no_session_between_transactions(pgbouncer_url):
    engine = create_engine(pgbouncer_url, poolclass=NullPool)
    with engine.connect() as first, engine.connect() as second:
        (pid,) = first.execute(text("SELECT pg_backend_pid()")).one()
        first.commit()
        (other,) = second.execute(text("SELECT pg_backend_pid()")).one()
        second.commit()
    assert pid == other, "two clients, one after the other, share a connection to the server"


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_listens_to_this_machine_only_and_not_as_root(kind):
    process = psutil.Process(own(kind)._own.process.pid)
    addresses = {at.laddr.ip for at in process.net_connections(kind="inet") if at.status == psutil.CONN_LISTEN}
    assert addresses == {"127.0.0.1"}
    assert process.uids().effective != 0


def test_nobody_comes_in_without_the_password(database_url):
    for kind in KINDS:
        own(kind)
        url = make_url(database_url(kind)).set(password="guessed")
        assert not servers._answers(url)


def test_a_missing_server_skips_its_tests_and_the_run_says_why(tmp_path):
    (tmp_path / "test_it.py").write_text("def test_it(mysql_url): ...\n")
    other = pytest_in(tmp_path, SAPWOOD_TEST_MYSQL_URL="mysql://127.0.0.1:1", SAPWOOD_TEST_REQUIRE="sqlite,postgresql")
    told, _ = other.communicate()
    assert other.returncode == 0, told
    assert "1 skipped" in told
    assert "MariaDB: skipped – " in told


def test_a_demanded_server_that_is_missing_fails_its_tests(tmp_path):
    (tmp_path / "test_it.py").write_text("def test_it(mysql_url): ...\n")
    other = pytest_in(tmp_path, SAPWOOD_TEST_MYSQL_URL="mysql://127.0.0.1:1", SAPWOOD_TEST_REQUIRE="sqlite,mysql")
    told, _ = other.communicate()
    assert other.returncode == 1, told
    assert "MariaDB: missing – " in told


def test_a_demand_for_an_unknown_server_is_an_error(tmp_path):
    other = pytest_in(tmp_path, SAPWOOD_TEST_REQUIRE="oracle")
    other.communicate()
    assert other.returncode == pytest.ExitCode.USAGE_ERROR


@pytest.mark.parametrize("end", ["by itself", "SIGINT", "SIGTERM", "SIGKILL"])
def test_nothing_is_left_of_a_run_however_it_ends(end, tmp_path):
    own("postgresql")
    own("mysql")
    (tmp_path / "test_it.py").write_text(f"""
import os, signal, servers

def test_it(pgbouncer_url, mysql_url):
    pids = [program.process.pid for program in servers._run()._programs]
    print("LEFT", servers._run()._folder, servers._run()._guard.pid, *pids, flush=True)
    if {end!r} == "SIGINT":
        # A shell that runs us in the background has it ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if {end!r} != "by itself":
        os.kill(os.getpid(), signal.Signals[{end!r}])
        signal.pause()
""")
    other = pytest_in(tmp_path, "-s")
    told, _ = other.communicate()
    (line,) = [line for line in told.splitlines() if "LEFT " in line]
    folder, *pids = line.partition("LEFT ")[2].split()
    assert len(pids) == 4, "the guard, PostgreSQL, pgbouncer and MariaDB"
    left = [psutil.Process(int(pid)) for pid in pids if not servers.has_ended(int(pid), within=30)]
    assert left == []
    assert not Path(folder).exists()

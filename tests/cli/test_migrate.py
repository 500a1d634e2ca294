import sqlite3

import pytest


@pytest.fixture
def app(folder):
    (folder / "jobs.py").write_text('from sapwood import Sapwood\napp = Sapwood("sqlite:///jobs.db")\n')
    return folder


def test_check_ends_with_4_until_the_tables_are_there(sapwood, app):
    result = sapwood("migrate", "--check")
    assert result.code == 4
    assert "not up to date" in result.out
    assert "fix: sapwood migrate" in result.err
    assert sapwood("migrate").code == 0
    assert sapwood("migrate", "--check").code == 0


def test_doing_it_again_changes_nothing(sapwood, app):
    assert "applied" in sapwood("migrate").out
    result = sapwood("migrate")
    assert result.out.startswith("up to date: sqlite:///")


def test_the_sql_makes_the_tables(sapwood, app):
    result = sapwood("migrate", "--sql")
    assert result.code == 0
    connection = sqlite3.connect(app / "other.db")
    connection.executescript(result.out)
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    connection.close()
    assert {"background_jobs", "background_attempts", "background_workers"} <= tables


def test_sql_and_check_exclude_each_other(sapwood, app):
    assert sapwood("migrate", "--sql", "--check").code == 2


def test_jobs_in_memory_need_no_tables(sapwood, folder):
    (folder / "jobs.py").write_text(
        "from sapwood import Sapwood, MemoryAdapter\napp = Sapwood(adapters={'default': MemoryAdapter()})\n"
    )
    assert sapwood("migrate", "--check").code == 0
    assert sapwood("migrate").code == 0
    assert "nothing to migrate" in sapwood("migrate", "--sql").err

import itertools
import json
import sqlite3

import pytest

from sapwood.adapters.migrations import OLDEST_READER, STEPS

NAMES = [step.name for step in STEPS]


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


@pytest.mark.parametrize("flags", [*itertools.combinations(["--sql", "--check", "--status"], 2)], ids=" ".join)
def test_flags_that_change_nothing_exclude_each_other(sapwood, app, flags):
    assert sapwood("migrate", *flags).code == 2


def test_the_status_tells_the_steps_and_ends_with_4_until_none_is_pending(sapwood, app):
    before = sapwood("migrate", "--status")
    assert before.code == 4
    assert f"schema   0 here, {len(STEPS)} in this release" in before.out
    assert [line.split(maxsplit=1) for line in before.out.splitlines()[2:]] == [["pending", step] for step in NAMES]
    assert "fix: sapwood migrate" in before.err
    sapwood("migrate")
    after = sapwood("migrate", "--status")
    assert after.code == 0
    assert f"schema   {len(STEPS)} here, {len(STEPS)} in this release" in after.out
    assert f"releases that know schema {OLDEST_READER} or a later one" in after.out
    assert [line.split(maxsplit=1) for line in after.out.splitlines()[3:]] == [["taken", step] for step in NAMES]
    assert after.err == ""


def test_the_status_is_had_as_json_for_every_adapter(sapwood, folder):
    (folder / "jobs.py").write_text(
        "from sapwood import Sapwood, MemoryAdapter\n"
        "app = Sapwood(adapters={'default': 'sqlite:///jobs.db', 'scratch': MemoryAdapter()})\n"
    )
    sapwood("migrate")
    note(folder / "jobs.db", schema_version=1)
    told = sapwood("migrate", "--status", "--json")
    assert told.code == 4
    mine, scratch = json.loads(told.out)["items"]
    assert mine == {
        "adapter": "default",
        "store": f"sqlite:///{folder}/jobs.db",
        "version": 1,
        "release_version": len(STEPS),
        "oldest_reader": OLDEST_READER,
        "taken": NAMES[:1],
        "pending": NAMES[1:],
    }
    assert (scratch["adapter"], scratch["version"], scratch["pending"]) == ("scratch", None, None)
    assert json.loads(sapwood("migrate", "--status", "--json", "--adapter", "scratch").out)["items"] == [scratch]


def test_the_status_of_tables_of_a_later_release_is_told_too(sapwood, app):
    sapwood("migrate")
    note(app / "jobs.db", schema_version=98)
    later = sapwood("migrate", "--status")
    assert (later.code, later.err) == (0, "")
    assert f"schema   98 here, {len(STEPS)} in this release" in later.out
    note(app / "jobs.db", oldest_reader=97)
    too_new = sapwood("migrate", "--status")
    assert too_new.code == 4
    assert "releases that know schema 97 or a later one" in too_new.out
    assert "fix: upgrade sapwood on this machine" in too_new.err


def note(path, **meta):
    """Change what the tables say of themselves."""
    connection = sqlite3.connect(path, isolation_level=None)
    for key, value in meta.items():
        connection.execute("UPDATE background_meta SET value = ? WHERE key = ?", (str(value), key))
    connection.close()


def test_jobs_in_memory_need_no_tables(sapwood, folder):
    (folder / "jobs.py").write_text(
        "from sapwood import Sapwood, MemoryAdapter\napp = Sapwood(adapters={'default': MemoryAdapter()})\n"
    )
    assert sapwood("migrate", "--check").code == 0
    assert sapwood("migrate").code == 0
    assert "nothing to migrate" in sapwood("migrate", "--sql").err

"""Whoever may write the tables can neither have code run that is no job, nor stop the workers."""

import json
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import pytest
from sqlalchemy import text

import forgeries
from conftest import worker_record
from sapwood import Job, Sapwood, Worker
from sapwood.adapters.base import JobFilter
from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
from sapwood.cli.main import run
from sapwood.record import JobDraft, JobState

ROWS = 500
GOOD = 20
PROGRAM = Path(__file__).parent / "programs" / "forged_worker.py"
SERVERS = ["sqlite", "postgresql", "mysql"]


class Counted(Job, name="forgeries.counted"):
    ran: ClassVar[list[int]] = []

    def perform(self, number: int) -> None:
        self.ran.append(number)


@pytest.fixture(params=SERVERS)
def store(request, database_url):
    adapter = SQLAlchemyAdapter(database_url(request.param))
    adapter.migrate()
    yield adapter
    adapter.close()


def test_500_forged_rows_import_nothing_call_nothing_and_stop_nobody(store, tmp_path):
    (tmp_path / "victim.py").write_text("open('owned', 'w').close()\nclass Job: pass\n")
    url = store.address()["database"]
    folder = [str(tmp_path), str(Path(__file__).parent)]
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), url, str(tmp_path)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([*folder, os.environ.get("PYTHONPATH", "")])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        forgeries.write(store, ROWS)
        forgeries.write_workers(store, str(tmp_path))
        good = [JobDraft(job=forgeries.KNOWN, args=f'{{"number": {1000 + number}}}') for number in range(GOOD)]
        store.enqueue(good)
        out, err = process.communicate("go\n", timeout=100)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, err
    told = json.loads(out)
    assert told["imported"] == []
    assert told["seen"] == []
    assert sorted(number for number in told["called"] if 1000 <= number < 1000 + GOOD) == [
        1000 + number for number in range(GOOD)
    ]
    assert not (tmp_path / "owned").exists()
    assert (tmp_path / "victim.py").exists()
    assert "\x1b" not in err
    assert "ERROR forged" not in [line[:12] for line in err.splitlines()]
    check_what_became_of_them(store)


def check_what_became_of_them(store):
    """A forged job ended for a reason that is told, or waits: for its moment, or for a class of its name."""
    after, seen = -(2**63) + 1, 0
    while page := store.jobs(after=after, limit=1000):
        after = page[-1].id
        for record in page:
            seen += 1
            match record.state:
                case JobState.FAILED:
                    assert record.last_error or record.job == forgeries.KNOWN, record
                case JobState.SCHEDULED:
                    assert record.unknown_since is not None or record.run_at.year > 2100, record
                case JobState.SUCCEEDED | JobState.CANCELLED | JobState.BLOCKED:
                    pass
                case _:
                    assert record.alone, record
    assert seen > ROWS // 3
    assert sum(store.counts().values()) == seen


PAST_READING = (
    {"run_at": "not a date"},
    {"run_at": "infinity"},
    {"run_at": "-infinity"},
    {"lock_token": 2**63 - 1},
    {"attempts": 2**31 - 1},
    {"job": b"\xff\xfe"},
    {"queue": b"\xff\xfe"},
    {"created_at": "infinity"},
    {"run_at": "infinity", "state": "scheduled"},
    {"run_at": "soon", "state": "scheduled", "priority": 7},
    {"locked_at": "infinity", "state": "running", "locked_by": "gone"},
    {"locked_at": "then", "state": "running", "locked_by": "gone"},
    {"started_at": "then"},
    {"started_at": "infinity"},
)


def test_a_row_that_cannot_be_read_is_failed_and_holds_up_no_other(store, monkeypatch, caplog):
    forged = [forgeries._SOUND | {"priority": 1} | odd for odd in PAST_READING]
    monkeypatch.setattr(forgeries, "rows", lambda: iter(forged))
    refused = forgeries.write(store, len(forged))
    assert refused < len(forged)
    monkeypatch.setattr(Counted, "ran", [])
    app = Sapwood(store)
    for number in range(3):
        Counted.perform_later(number)
    assert Worker(app).workoff().succeeded == 3
    assert sorted(Counted.ran) == [0, 1, 2]
    left = store.jobs()
    # A server that makes text of bytes has a job of an unknown name.
    aside = [record for record in left if record.unknown_since is None]
    assert len(aside) >= 2
    assert len(left) == len(forged) - refused
    assert {record.state for record in aside} == {JobState.FAILED}
    assert [
        record for record in aside if not record.last_error.startswith("UnreadableRow: the row cannot be read")
    ] == []
    assert "that cannot be read are set aside" in caplog.text
    assert store.retry(aside) == {record.id for record in aside}
    assert store.delete([store.get(record.id) for record in aside]) == {record.id for record in aside}


def test_what_cannot_be_read_is_set_aside_while_others_write(database):
    store = SQLAlchemyAdapter(database)
    store.register(worker_record("w"))
    store.enqueue([JobDraft(job="nobody", args="{}") for _ in range(3)])
    store.claim("w", limit=3)
    writing, over = threading.Event(), threading.Event()

    def write():
        with closing(sqlite3.connect(store._dialect._path, timeout=60, isolation_level=None)) as other:
            while not over.is_set():
                other.execute("UPDATE background_workers SET beat = beat + 1 WHERE id = 'other'")
                writing.set()

    with store._writing() as connection:
        connection.execute(text("UPDATE background_jobs SET locked_at = 'then' WHERE id = 2"))
    store.register(worker_record("other"))
    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert writing.wait(30)
        rescued = store.rescue("w")
    finally:
        over.set()
        thread.join()
    assert len(rescued) == 2
    assert store.get(2).last_error.startswith("UnreadableRow")
    store.close()


def test_a_forged_worker_has_no_file_touched_that_its_id_names(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    store = SQLAlchemyAdapter(f"sqlite:///{tmp_path}/jobs.db")
    store.migrate()
    forgeries.write_workers(store, str(tmp_path))
    forged = store.workers()
    assert len(forged) >= 5
    for worker in forged:
        assert store.is_dead(worker) is True
        assert store.notes(worker) is None
        store.pardon(worker.id)
        store.rescue(worker.id)
    assert store.workers() == []
    assert victim.read_text() == "mine"
    assert (tmp_path / "jobs.db.workers" / "turn.ticket").exists()
    store.close()


def test_a_look_in_vain_is_not_repeated_at_once(adapter, monkeypatch):
    adapter.migrate()
    looks = []
    monkeypatch.setattr("sapwood.adapters.sqlalchemy.Sieve.find", lambda *_: looks.append(1) or {})
    assert adapter.set_unreadable_aside() == 0
    assert adapter.set_unreadable_aside() == 0
    assert len(looks) == 1


def test_no_row_of_ours_is_ever_set_aside(store):
    worker = worker_record("w1")
    store.register(worker)
    store.enqueue([JobDraft(job="a", args="{}") for _ in range(5)])
    store.claim(worker.id, limit=2)
    before = store.jobs()
    assert store.set_unreadable_aside() == 0
    assert store.jobs() == before
    store.unregister(worker.id)


def test_the_commands_show_forged_rows_without_a_traceback_and_without_orders_to_the_terminal(
    tmp_path, monkeypatch, capsys
):
    url = f"sqlite:///{tmp_path}/jobs.db"
    (tmp_path / "forged_app.py").write_text(f"from sapwood import Sapwood\napp = Sapwood({url!r})\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAPWOOD_APP", "forged_app:app")
    monkeypatch.setattr(sys, "path", [*sys.path])
    store = SQLAlchemyAdapter(url)
    store.migrate()
    forgeries.write(store, 200)
    forgeries.write_workers(store, str(tmp_path))
    ids = [record.id for record in store.jobs(JobFilter(), limit=1000)]
    for words in (
        ["list", "--limit", "1000"],
        ["list", "--limit", "1000", "--json"],
        ["list", "--limit", "1000", "--color", "always"],
        ["ls", "-s", "failed"],
        *(["show", str(one)] for one in ids),
        *(["show", str(one), "--json"] for one in ids[::10]),
        ["clear", "--dry-run"],
        ["enqueue", "x"],
        ["migrate", "--status"],
        ["status"],
    ):
        code = run(words)
        out, err = capsys.readouterr()
        assert "Traceback" not in err, words
        assert "error: unexpected" not in err, (words, err)
        assert code in {0, 1, 5}, (words, err)
        plain = out if "--color" not in words else ""
        assert [char for char in plain + err if char < " " and char != "\n"] == [], words
        assert [char for char in out + err if char in "\u202e\x07\x9b\ufeff"] == [], words
    store.close()

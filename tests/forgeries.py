"""Rows that somebody writes into the tables who may write them, and who wants code to run or workers to stop."""

import json
import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter

KNOWN = "forgeries.good"
"""A job that the application has."""

NAMES = (
    "os:system",
    "os.system",
    "os:path.join",
    "subprocess.Popen",
    "subprocess:Popen",
    "builtins:eval",
    "builtins:exec",
    "builtins:__import__",
    "__main__:x",
    "__main__:Good",
    "__mp_main__:Good",
    "pickle:loads",
    "forged_worker:Job.__init__",
    "sapwood.job:Job",
    "sapwood:Job.perform",
    "sapwood.testing.conformance:cases",
    "antigravity",
    "antigravity:x",
    "this:d",
    "victim",
    "victim:Job",
    "victim:Job.perform.__globals__",
    f"{KNOWN}.__class__",
    f"{KNOWN}.__init__.__globals__",
    f"{KNOWN}:perform",
    f" {KNOWN}",
    f"{KNOWN} ",
    KNOWN.upper(),
    KNOWN.replace("o", "\u043e"),
    f"{KNOWN}\u200b",
    "../victim",
    "/etc/passwd",
    "file:///etc/passwd",
    "http://127.0.0.1/victim.py",
    "\x1b[2J\x1b]0;owned\x07",
    "\u202egnp.exe",
    "a\nERROR forged line",
    "a\r\nb",
    "%s%s%s%n",
    "{0.__class__}",
    "${jndi:ldap://x}",
    "'; DROP TABLE background_jobs; --",
    ":",
    "::",
    ".",
    "x" * 255,
)

ARGS = (
    "",
    " ",
    "null",
    "[]",
    "42",
    '"text"',
    "{",
    '{"number": ',
    '{"number": 1',
    '{"number": 1}}',
    '{"number": NaN}',
    '{"number": Infinity}',
    '{"number": -0}',
    '{"number": 1e999}',
    f'{{"number": {"9" * 5000}}}',
    f'{{"number": {2**70}}}',
    '{"number": 1, "number": "2"}',
    '{"number": "1; import os"}',
    '{"number": true}',
    '{"number": {"__class__": "os.system"}}',
    '{"number": {"py/object": "os.system"}}',
    '{"number": {"py/reduce": [{"py/type": "os.system"}, {"py/tuple": ["touch owned"]}]}}',
    '{"number": 1, "shell": true}',
    '{"number": 1, "self": {}}',
    '{"number": 1, "context": {}}',
    '{"number": 1, "__class__": "x"}',
    '{"*args": ["touch owned"]}',
    '{"**kwargs": {"shell": true}}',
    '{"self": 1}',
    "[" * 2000 + "]" * 2000,
    '{"number": ' + "[" * 2000 + "]" * 2000 + "}",
    '{"a":' * 2000 + "1" + "}" * 2000,
    '{"number": "\\ud800"}',
    '{"\\u0000": 1}',
    '{"\\u001b[2J\\u202e": 1}',
    "\ufeff{}",
    "cos\nsystem\n(S'touch owned'\ntR.",
    "!!python/object/apply:os.system ['touch owned']",
    "__import__('os').system('touch owned')",
    '{"number": "' + "x" * 100_000 + '"}',
)

_CALL = json.dumps({"command": "touch owned", "args": ["touch", "owned"], "shell": True})
_SOUND: dict[str, Any] = {
    "state": "ready",
    "queue": "default",
    "priority": 50,
    "run_at": "2020-01-01 00:00:00.000000",
    "job": KNOWN,
    "args": '{"number": 1}',
    "attempts": 0,
    "max_attempts": 1,
    "lock_token": 0,
    "locked_by": None,
    "locked_at": None,
    "deaths": 0,
    "alone": 0,
    "last_error": None,
    "unknown_since": None,
    "failed_at": None,
    "finished_at": None,
    "created_at": "2020-01-01 00:00:00.000000",
    "result": None,
}

ODD: tuple[dict[str, Any], ...] = (
    {"state": "exploded"},
    {"state": ""},
    {"state": "READY"},
    {"state": "running", "locked_by": "0" * 32},
    {"state": "running", "locked_by": "../../victim", "locked_at": "2020-01-01 00:00:00"},
    {"state": "running", "locked_by": "\x1b[2J"},
    {"state": "running", "locked_by": None},
    {"state": "ready", "locked_by": "somebody"},
    {"priority": 0},
    {"priority": -1},
    {"priority": 101},
    {"priority": 2**40},
    {"priority": "high"},
    {"attempts": -1},
    {"attempts": -(2**31)},
    {"attempts": 2**31 - 1},
    {"attempts": 2**31 - 2},
    {"attempts": 2**63},
    {"attempts": "many"},
    {"max_attempts": -(2**31)},
    {"max_attempts": 0},
    {"max_attempts": 2**31 - 1, "job": "nobody"},
    {"lock_token": -1},
    {"lock_token": -(2**63)},
    {"lock_token": 2**63 - 1},
    {"lock_token": 2**63 - 2},
    {"lock_token": "token"},
    {"lock_token": 1.5},
    {"deaths": -1},
    {"deaths": 32767, "state": "running", "locked_by": "gone"},
    {"deaths": 99999},
    {"alone": 1},
    {"alone": 7},
    {"alone": -1},
    {"run_at": "not a date"},
    {"run_at": ""},
    {"run_at": "infinity"},
    {"run_at": "-infinity"},
    {"run_at": "0000-00-00 00:00:00"},
    {"run_at": "0001-01-01 00:00:00.000000"},
    {"run_at": "9999-12-31 23:59:59.999999"},
    {"run_at": "99999-01-01 00:00:00"},
    {"run_at": "2020-02-30 00:00:00.000000"},
    {"run_at": "4714-01-01 00:00:00 BC"},
    {"run_at": 0},
    {"run_at": "soon", "state": "scheduled", "priority": 1},
    {"run_at": "infinity", "state": "scheduled", "priority": 2},
    {"created_at": "infinity"},
    {"created_at": "when"},
    {"locked_at": "-infinity", "state": "running", "locked_by": "gone"},
    {"locked_at": "then", "state": "running", "locked_by": "gone"},
    {"unknown_since": "0001-01-01 00:00:00.000000", "job": "nobody"},
    {"unknown_since": "x", "job": "nobody"},
    {"finished_at": "x", "state": "failed"},
    {"failed_at": "infinity", "state": "failed"},
    {"finished_at": "x", "state": "succeeded", "result": "{"},
    {"job": ""},
    {"job": "x" * 100_000},
    {"job": "a\0b"},
    {"job": b"\xff\xfe bytes"},
    {"args": b"\x80\x04cos\nsystem\n"},
    {"queue": ""},
    {"queue": "q" * 100_000},
    {"queue": "\x1b[31m\u202e\n"},
    {"queue": b"\xff"},
    {"last_error": b"\xff"},
    {"last_error": "\x1b]52;c;b3duZWQ=\x07", "state": "failed"},
    {"result": b"\xff", "state": "succeeded"},
    {"id": -5},
    {"id": 0},
    {"id": 2**62},
)


def rows(seed: int = 5) -> Iterator[dict[str, Any]]:
    """Give rows without end: first the nastiest that were thought of, then mixtures of them."""
    for name in NAMES:
        yield _SOUND | {"job": name, "args": _CALL}
    for args in ARGS:
        yield _SOUND | {"args": args}
    for odd in ODD:
        yield _SOUND | odd
    chance = random.Random(seed)
    while True:
        row = _SOUND | {"job": chance.choice([KNOWN, *NAMES]), "args": chance.choice([_CALL, *ARGS])}
        for odd in chance.sample(ODD, chance.randint(0, 2)):
            row |= {name: value for name, value in odd.items() if name != "id"}
        if row["job"] == KNOWN:
            row["max_attempts"] = min(1, row["max_attempts"])
        yield row


def write(adapter: SQLAlchemyAdapter, count: int) -> int:
    """Write so many rows straight into the table, past every check of ours; return how many the database refused."""
    refused = stored = 0
    table = adapter.tables.jobs.name
    columns = [column.name for column in adapter.tables.jobs.columns]
    with adapter._connected_and_migrated().connect() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA ignore_check_constraints = ON")
        for row in rows():
            names = [name for name in columns if name in row]
            sql = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(f':{name}' for name in names)})"
            try:
                with connection.begin_nested() if connection.in_transaction() else connection.begin():
                    connection.execute(text(sql), row)
                stored += 1
            except (DBAPIError, UnicodeError, OverflowError):
                refused += 1
            if stored == count:
                break
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA ignore_check_constraints = OFF")
        with suppress(DBAPIError):
            connection.commit()
    return refused


def write_workers(adapter: SQLAlchemyAdapter, folder: str) -> None:
    """Write workers that never lived, half of them past reading: on SQLite a worker's id names a file."""
    table = adapter.tables.workers.name
    columns = "id, host, pid, queues, concurrency, release, name, beat, beat_at, started_at"
    sql = f"INSERT INTO {table} ({columns}) VALUES (:{columns.replace(', ', ', :')})"
    row = {"host": "\x1b[2J", "pid": -1, "concurrency": 1, "release": "0", "name": "\u202e", "beat": -1}
    row["started_at"] = "2020-01-01 00:00:00.000000"
    names = ("../victim", f"{folder}/victim", "..", ".", "", "turn.ticket", "a/../../victim")
    for number, name in enumerate(names):
        for garbage in ({"queues": None, "beat_at": None}, {"queues": "[" * 2000, "beat_at": "x"}):
            forged = row | garbage | {"id": name if garbage["queues"] is None else f"{name}{number}\n"}
            with suppress(DBAPIError), adapter._connected_and_migrated().begin() as connection:
                connection.execute(text(sql), forged)

import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
from sapwood.record import JobDraft


@pytest.fixture
def store(project):
    adapter = SQLAlchemyAdapter(f"sqlite:///{project}/jobs.db")
    yield adapter
    adapter.close()


def test_a_job_is_enqueued_by_the_name_of_its_class(sapwood, project, store):
    result = sapwood("enqueue", "WelcomeEmail", "user_id=42", "locale=007")
    assert result == (
        0,
        "#1 WelcomeEmail  ready in queue default\n",
        "no worker is running – start one: sapwood work\n",
    )
    record = store.get(1)
    assert (record.job, json.loads(record.args)) == (
        "jobs.examples:WelcomeEmail",
        {"user_id": 42, "locale": "007"},
    )


def test_a_job_is_enqueued_with_json_and_options(sapwood, project, store):
    assert sapwood(
        "enqueue", "jobs.examples:WelcomeEmail", '{"user_id": 1}', "--queue", "bulk", "--priority", "90", "--in", "5m"
    ).out.startswith("#1 WelcomeEmail  scheduled in queue bulk, in 5m (")
    record = store.get(1)
    assert (record.queue, record.priority, record.state) == ("bulk", 90, "scheduled")
    assert timedelta(minutes=4) < record.run_at - datetime.now(UTC) <= timedelta(minutes=5)


def test_a_job_is_enqueued_for_a_moment(sapwood, project, store):
    sapwood("enqueue", "Fails", "--at", "2999-12-31T12:00Z")
    assert store.get(1).run_at == datetime(2999, 12, 31, 12, tzinfo=UTC)


def test_values_are_read_as_the_annotations_say(sapwood, project):
    sapwood("enqueue", "Flags", "on=no", "ratio=2", "name=true", "ids=[1,2]")
    document = json.loads(sapwood("list", "--json").out)
    assert document["items"][0]["args"] == {"on": False, "ratio": 2.0, "name": "true", "ids": [1, 2]}


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (("WelcomEmail", "user_id=1"), 5, "did you mean WelcomeEmail?"),
        (("welcomeemail", "user_id=1"), 5, "did you mean WelcomeEmail?"),
        (("WelcomeEmail",), 2, "user_id"),
        (("WelcomeEmail", "user=1"), 2, "user"),
        (("WelcomeEmail", "user_id=many"), 2, 'user_id must be a whole number, not "many"'),
        (("Flags", "on=1", "ratio=1", "name=x", "ids=7"), 2, "ids does not fit"),
        (("Flags", "on=1", "ratio=1", "name=x", 'ids=["a"]'), 2, "ids[0] does not fit"),
        (("WelcomeEmail", '[1, "en", 3]'), 2, "does not accept these arguments"),
        (("WelcomeEmail", "42"), 2, "neither KEY=VALUE nor a JSON object"),
        (("WelcomeEmail", "user_id=1", "--priority", "101"), 2, "101"),
        (("WelcomeEmail", "user_id=1", "--in", "soon"), 2, "no length of time"),
        (("WelcomeEmail", "user_id=1", "--in", "5", "--at", "2999-01-01"), 2, "exclude each other"),
    ],
)
def test_a_mistake_stores_nothing(sapwood, project, store, words, code, expected):
    result = sapwood("enqueue", *words)
    assert (result.code, result.out) == (code, "")
    assert expected in result.err
    assert "Traceback" not in result.err
    assert not store.jobs()


def test_a_short_name_that_means_two_classes_is_refused_with_both(sapwood, project):
    (project / "jobs" / "others.py").write_text(
        "from sapwood import Job\nclass Fails(Job):\n    def perform(self) -> None: ...\n"
    )
    result = sapwood("enqueue", "Fails")
    assert result.code == 5
    assert "jobs.examples:Fails, jobs.others:Fails" in result.err
    assert sapwood("enqueue", "jobs.others:Fails").code == 0


def test_an_empty_store_has_nothing_to_list(sapwood, project):
    assert sapwood("list") == (0, "", "no jobs\n")
    assert sapwood("list", "-s", "failed") == (0, "", "no jobs match\n")
    assert sapwood("list", "-q") == (0, "", "")


def test_jobs_are_listed_in_columns(sapwood, project):
    sapwood("enqueue", "WelcomeEmail", "user_id=42")
    sapwood("enqueue", "Fails", "--in", "2h")
    lines = sapwood("list").out.splitlines()
    assert re.sub(r" +", " ", lines[0]).strip() == "ID STATE CLASS QUEUE TRIES WHEN ARGS"
    assert re.match(r"1   ○ ready      WelcomeEmail  default  0/24   \S+( ago)?  +user_id=42$", lines[1])
    assert re.match(r"2   ○ scheduled  Fails         email    0/2    in 2h$", lines[2])


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ((), [1, 2, 3]),
        (("-s", "scheduled"), [3]),
        (("-s", "ready,scheduled"), [1, 2, 3]),
        (("--queue", "email"), [2, 3]),
        (("--queue", "default,email", "-s", "ready"), [1, 2]),
        (("--class", "Fails"), [2, 3]),
        (("--class", "gone:Class"), []),
        (("--after", "1", "--limit", "1"), [2]),
    ],
)
def test_a_list_can_be_narrowed(sapwood, project, words, ids):
    sapwood("enqueue", "WelcomeEmail", "user_id=42")
    sapwood("enqueue", "Fails")
    sapwood("enqueue", "Fails", "--in", "2h")
    document = json.loads(sapwood("list", *words, "--json").out)
    assert [item["id"] for item in document["items"]] == ids


def test_a_list_goes_on_where_it_ended(sapwood, project):
    for _ in range(3):
        sapwood("enqueue", "Fails")
    document = json.loads(sapwood("list", "--limit", "2", "--json").out)
    assert document["next"] == 2
    document = json.loads(sapwood("list", "--limit", "2", "--after", "2", "--json").out)
    assert ([item["id"] for item in document["items"]], document["next"]) == ([3], None)
    assert sapwood("list", "--limit", "2").err == "more: add --after 2\n"


def test_what_rows_hold_cannot_speak_to_the_terminal(sapwood, project, store):
    store.enqueue([JobDraft(job="evil:\x1b[2JName", args='{"a": "\\u001b[31m\\n"}', queue="q\x1b[0m\u202e")])
    for words in (("list",), ("show", "1"), ("list", "--json"), ("show", "1", "--json")):
        result = sapwood(*words)
        assert result.code == 0
        assert "\x1b" not in result.out + result.err
        assert "\u202e" not in result.out


def test_a_job_that_waits_says_why(sapwood, project):
    sapwood("enqueue", "WelcomeEmail", "user_id=42")
    result = sapwood("show", "1")
    assert result.code == 0
    assert result.out.startswith(
        "○ #1 WelcomeEmail  ready\n  why       no worker is running\n  fix       sapwood work\n"
    )
    assert '  args      {"user_id": 42}' in result.out


def test_a_job_that_is_not_due_says_when(sapwood, project):
    sapwood("enqueue", "Fails", "--in", "2h")
    assert re.search(r"why       not due yet: in 2h \(\d{4}-", sapwood("show", "1").out)


def test_a_job_without_a_class_says_so(sapwood, project, store):
    store.enqueue([JobDraft(job="jobs.examples:Fail", args="{}")])
    result = sapwood("show", "1")
    assert "no class jobs.examples:Fail is loaded in this app; there is jobs.examples:Fails" in result.out


def test_a_failed_job_shows_its_tries(sapwood, project):
    sapwood("enqueue", "Fails")
    sapwood("workoff")
    result = sapwood("show", "1")
    assert "scheduled" in result.out.splitlines()[0]
    assert re.search(r"why       not due yet: in 1h .*; try 2 of 2", result.out)
    assert "try 1" in result.out
    assert "examples.py" in result.out
    assert r"ValueError: no such\x1b[31m address" in result.out
    document = json.loads(sapwood("show", "1", "--json").out)
    assert document["attempts"] == 1
    assert document["history"][0]["attempt"] == 1
    assert "Traceback" in document["history"][0]["traceback"]
    assert document["why"].startswith("not due yet")


def test_a_job_that_is_not_there_ends_with_5(sapwood, project):
    result = sapwood("show", "7")
    assert (result.code, result.out) == (5, "")
    assert "there is no job #7" in result.err


def test_clear_does_nothing_unasked(sapwood, project, store):
    sapwood("enqueue", "Fails")
    result = sapwood("clear")
    assert (result.code, result.out) == (6, "")
    assert "This deletes 1 job (1 ready) in sqlite:///" in result.err
    assert "add --yes" in result.err
    assert len(store.jobs()) == 1


def test_clear_deletes_what_matches(sapwood, project, store):
    sapwood("enqueue", "WelcomeEmail", "user_id=1")
    sapwood("enqueue", "Fails")
    sapwood("enqueue", "Fails", "--in", "2h")
    result = sapwood("clear", "--queue", "email", "-s", "ready", "--dry-run")
    assert (result.code, result.out[:26]) == (0, "would delete 1 job (1 read")
    assert len(store.jobs()) == 3
    assert sapwood("clear", "--class", "Fails", "-s", "scheduled", "--yes").out == "✓ deleted 1 job\n"
    assert [record.id for record in store.jobs()] == [1, 2]
    assert json.loads(sapwood("clear", "--yes", "--json").out) == {"deleted": 2}
    assert not store.jobs()
    assert sapwood("clear").out.startswith("nothing to delete in sqlite:///")


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 0), ("n\n", 6, 1), ("", 6, 1)])
def test_clear_asks_on_a_terminal(sapwood, project, store, monkeypatch, answer, code, left):
    import io

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    sapwood("enqueue", "Fails")
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    assert sapwood("clear").code == code
    assert len(store.jobs()) == left
    assert sapwood("clear", "--no-input").code == (6 if left else 0)


def test_running_jobs_are_cleared_on_demand_only(sapwood, project, store):
    from conftest import worker_record

    sapwood("enqueue", "Fails")
    me = worker_record()
    store.register(me)
    store.claim(me.id, limit=1)
    assert sapwood("clear", "--yes").out.startswith("nothing to delete")
    assert sapwood("clear", "-s", "running", "--yes").code == 2
    assert sapwood("clear", "--running", "--yes").out == "✓ deleted 1 job\n"


def test_a_running_job_says_where(sapwood, project, store):
    from conftest import worker_record

    sapwood("enqueue", "Fails")
    me = worker_record()
    store.register(me)
    store.claim(me.id, limit=1)
    result = sapwood("show", "1")
    assert result.out.startswith("▶ #1 Fails  running\n")
    assert f"worker    {me.id}, for" in result.out


def test_every_kind_of_job_can_be_listed_and_shown(sapwood, project, store):
    from msgspec.structs import replace

    from conftest import worker_record
    from sapwood.adapters.base import Settlement
    from sapwood.lifecycle import Cancelled, Failed, Failure, Succeeded

    me = worker_record()
    store.register(me)
    drafts = [JobDraft(job="jobs.examples:Flags", args='{"on": true}') for _ in range(4)]
    store.enqueue(drafts)
    records = store.claim(me.id, limit=4).claimed
    outcomes = [Succeeded(keep=True, result='"done"'), Failed(Failure("Error: x")), Cancelled("enough")]
    store.settle(me.id, [Settlement(*pair) for pair in zip(records, outcomes, strict=False)])
    assert re.findall(r"(\S) (\w+) +Flags", sapwood("list").out) == [
        ("✓", "succeeded"),
        ("✕", "failed"),
        ("–", "cancelled"),
        ("▶", "running"),
    ]
    assert '  result    "done"' in sapwood("show", "1").out
    assert "  error     Error: x" in sapwood("show", "2").out
    assert "    Error: x" in sapwood("show", "2").out
    assert "  finished  now" in sapwood("show", "3").out
    store.rescue(replace(me).id, notes=None)
    assert "  deaths    1 of its workers died while they ran it" in sapwood("show", "4").out


def test_a_job_may_be_done_before_its_enqueue_has_been_told(sapwood, project, monkeypatch):
    monkeypatch.setattr("sapwood.adapters.sqlalchemy.SQLAlchemyAdapter.get", lambda *_: None)
    assert sapwood("enqueue", "Fails").out == "#1 Fails  done already\n"


def test_enqueue_gives_json(sapwood, project):
    document = json.loads(sapwood("enqueue", "WelcomeEmail", "user_id=1", "--json").out)
    assert (document["id"], document["state"], document["args"]) == (1, "ready", {"user_id": 1})


def test_clear_gives_json_of_what_it_would_delete(sapwood, project):
    sapwood("enqueue", "Fails")
    assert json.loads(sapwood("clear", "--dry-run", "--json").out) == {"deleted": 0, "matching": {"ready": 1}}


def test_annotations_that_cannot_be_resolved_are_no_obstacle(sapwood, project):
    (project / "jobs" / "odd.py").write_text(
        "import typing, sapwood\n"
        "class Odd(sapwood.Job):\n"
        "    def perform(self, n, text: typing.Any = None) -> None:\n        print(n, text)\n"
    )
    assert sapwood("enqueue", "Odd", "n=1", "text=a").code == 0
    assert "1 a" in sapwood("workoff").out

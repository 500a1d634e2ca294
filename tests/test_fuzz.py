"""Whatever is said, the answer is a result or an error of ours: never a traceback, and never no answer."""

import os
import subprocess
import sys
from datetime import date
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fuzzing
from sapwood import Job, MemoryAdapter, Sapwood, WorkerGroup, config
from sapwood.arguments import Codec
from sapwood.cli.main import run
from sapwood.errors import InvalidArguments, SapwoodError
from sapwood.options import Options
from sapwood.spec import parse

FULL = os.environ.get("SAPWOOD_STORM") == "full"
LINES, DOCUMENTS = (20_000, 200_000) if FULL else (300, 5_000)
GROUP = ["count", "queues", "adapter", "concurrency", "max_jobs", "poll_interval"]
DEEP = ['{"number": ' + "[" * 100_000, "[" * 100_000, '{"number": ' + "[" * 90 + "]" * 90 + "}"]
CODES = {0, 1, 2, 3, 4, 5, 6}

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.dates(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
odd = st.one_of(anything, st.floats(), st.just(object()), st.tuples(st.text()), st.sets(st.integers()), st.timedeltas())


def untyped(value, *more, **named):
    pass


def typed(number: int, when: date | None = None, names: list[str] = (), *rest: float, **more: str):  # type: ignore[assignment]
    pass


@given(anything)
def test_arguments_come_back_equal_or_are_refused(value):
    codec = Codec(untyped)
    try:
        text = codec.encode((value,), {})
    except InvalidArguments:
        return
    (back,), named = codec.decode(text)
    assert (back, type(back), named) == (value, type(value), {})
    assert codec.encode((back,), {}) == text


@pytest.mark.parametrize("function", [untyped, typed])
def test_stored_arguments_are_read_or_refused(function):
    codec = Codec(function)
    for text in islice(fuzzing.documents(7), DOCUMENTS):
        try:
            codec.decode(text)
        except InvalidArguments:
            continue


@given(st.binary(max_size=50) | st.text(max_size=50))
def test_stored_garbage_is_refused(text):
    try:
        Codec(typed).decode(text if isinstance(text, str) else text.decode("utf-8", "surrogateescape"))
    except InvalidArguments:
        return


@pytest.mark.parametrize(
    "text", ['{"number": ' + "[" * 100_000, "[" * 100_000, '{"number": ' + "[" * 90 + "]" * 90 + "}"]
)
def test_deep_arguments_are_refused(text):
    with pytest.raises(InvalidArguments):
        Codec(typed).decode(text)


def test_stored_arguments_beyond_the_limit_are_refused():
    with pytest.raises(InvalidArguments, match="too many"):
        Codec(untyped).decode('{"value": "' + "x" * 1_100_000 + '"}')


@given(st.dictionaries(st.sampled_from(["wait", "wait_until", "queue", "priority"]), odd))
def test_options_are_taken_or_refused(options):
    try:
        Options(**options)
    except SapwoodError:
        return


@given(st.dictionaries(st.sampled_from(GROUP), odd))
def test_worker_groups_are_taken_or_refused(settings):
    try:
        Sapwood(MemoryAdapter(), workers=[WorkerGroup(**settings)])
    except SapwoodError:
        return


@given(odd, st.one_of(st.none(), odd))
def test_an_app_is_made_or_refused(store, queues):
    try:
        Sapwood(store, queues=queues)
    except SapwoodError:
        return


@given(st.text(max_size=40))
def test_a_url_is_taken_or_refused(rest):
    for start in ("", "sqlite:///", "postgresql://", "mysql://u:p@"):
        try:
            Sapwood(start + rest)
        except SapwoodError:
            continue


@given(st.text(max_size=30) | st.from_regex(r"[a-z+:, 0-9]{0,20}"))
def test_a_specification_of_workers_is_read_or_refused(text):
    try:
        parse(text)
    except SapwoodError:
        return


@given(st.sampled_from(sorted(config.KINDS)), st.text(max_size=20))
def test_the_environment_is_read_or_refused(name, value):
    settings = config.Settings(environ={f"SAPWOOD_{name.upper()}": value}, table={}, file=None)
    try:
        settings.get(name)
    except SapwoodError:
        return


@given(st.sampled_from([*sorted(config.KINDS), "nothing"]), odd)
def test_a_table_of_settings_is_read_or_refused(name, value):
    try:
        config.Settings(environ={}, table={name: value}, file=None).get(name)
    except (SapwoodError, KeyError):
        return


@given(st.binary(max_size=80))
def test_a_pyproject_is_read_or_refused(tmp_path_factory, said):
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    folder.mkdir(exist_ok=True)
    (folder / "pyproject.toml").write_bytes(b"[tool.sapwood]\n" + said)
    try:
        config.read(folder, {})
    except SapwoodError:
        return


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A project in a folder of its own, with an app that the commands find."""
    (tmp_path / "jobs.py").write_text(
        f"from sapwood import Job, Sapwood\napp = Sapwood('sqlite:///{tmp_path}/jobs.db')\n"
        "class WelcomeEmail(Job):\n    def perform(self, user_id: int = 1): pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "stdin", Path(os.devnull).open())  # noqa: SIM115 - to the end of the test
    for name in ("SAPWOOD_APP", "SAPWOOD_TRACEBACK"):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path
    sys.stdin.close()
    sys.modules.pop("jobs", None)


def test_a_command_line_ends_with_a_code_that_is_documented_and_without_a_traceback(shop, capsys):
    for words in islice(fuzzing.command_lines(11), LINES):
        code = run(words)
        out, err = capsys.readouterr()
        assert code in CODES, (words, code)
        assert "error: unexpected" not in err, (words, err)
        assert "Traceback" not in out, words
        assert [char for char in out + err if char in "\x07\x1b\x9b\u202e\0"] == [] or "always" in words, words


def test_a_command_line_as_a_process_of_its_own_ends_in_the_same_way(shop):
    lines = (
        words for words in fuzzing.command_lines(13) if not any("\0" in word or "\ud800" in word for word in words)
    )
    for words in islice(lines, 200 if FULL else 4):
        done = subprocess.run(
            [sys.executable, "-m", "sapwood", *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode in CODES, (words, done)
        assert "Traceback" not in done.stderr, (words, done)


def test_the_fuzzer_can_see_a_job(shop):
    assert run(["enqueue", "WelcomeEmail", "user_id=42"]) == 0
    assert issubclass(sys.modules["jobs"].WelcomeEmail, Job)

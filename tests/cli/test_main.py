import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from sapwood._version import __version__
from sapwood.cli import main
from sapwood.cli.command import Command
from sapwood.errors import StoreUnavailable


def every_command():
    context = click.Context(main.commands)
    for name in main.commands.list_commands(context):
        command = main.commands.get_command(context, name)
        if isinstance(command, click.Group):
            yield from ((f"{name} {below}", command.commands[below]) for below in command.commands)
        else:
            yield name, command


EVERY_COMMAND = dict(every_command())


def test_alone_it_prints_its_help(sapwood):
    result = sapwood()
    assert result.code == 0
    assert result.out == sapwood("--help").out
    assert re.search(r"Start here:\n  setup +Prepare", result.out)


def test_the_module_can_be_run(folder):
    done = subprocess.run([sys.executable, "-m", "sapwood", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"sapwood {__version__}\n"


def test_help_loads_nothing_heavy(folder):
    code = (
        "import sys; from sapwood.cli.main import run; run(['--help']); "
        "print(sorted({'sqlalchemy', 'rich'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


@pytest.mark.parametrize("name", ["", "generate", *EVERY_COMMAND])
def test_every_help_fits_into_80_columns(sapwood, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "200")
    result = sapwood(*name.split(), "-h")
    assert result.code == 0
    assert max(len(line) for line in result.out.splitlines()) <= 80


@pytest.mark.parametrize("name", EVERY_COMMAND)
def test_every_help_is_one_sentence_with_examples(sapwood, name):
    command = EVERY_COMMAND[name]
    assert isinstance(command, Command)
    assert command.examples
    sentence = command.help.partition("\n\n")[0].replace("\n", " ")
    assert sentence.count(".") == 1
    assert "Options of every command:" in sapwood(*name.split(), "--help").out


@pytest.mark.parametrize("name", EVERY_COMMAND)
def test_every_example_in_help_is_understood(name):
    import shlex

    command = EVERY_COMMAND[name]
    for example in command.examples:
        words = shlex.split(example.partition(" > ")[0])
        words[1:2] = [main._ALIASES.get(words[1], words[1])]
        assert words[: 1 + len(name.split())] == ["sapwood", *name.split()]
        command.make_context(name, words[1 + len(name.split()) :]).close()


def test_the_list_of_commands_says_of_each_what_it_says_itself(sapwood):
    for name, entry in main._ENTRIES.items():
        command = main.commands.get_command(click.Context(main.commands), name)
        assert entry.sentence == command.get_short_help_str(limit=200)


def test_an_unknown_command_is_answered_with_the_one_that_was_meant(sapwood):
    result = sapwood("worke")
    assert result == (2, "", 'error: no command "worke" – did you mean "work"?\n  fix: sapwood --help\n')


def test_generate_alone_prints_its_help_and_answers_a_wrong_name(sapwood):
    assert sapwood("generate").out == sapwood("generate", "--help").out
    assert sapwood("generate", "jbo").err.startswith('error: no command "jbo" – did you mean "job"?')


def test_an_unknown_option_is_answered_with_the_one_that_was_meant(sapwood):
    result = sapwood("work", "--concurency", "3")
    assert result.code == 2
    assert "--concurrency" in result.err
    assert "fix: sapwood work --help" in result.err


@pytest.mark.parametrize("words", ["show", "show x", "list -s redy", "enqueue", "migrate extra"])
def test_a_wrong_call_ends_with_2_and_points_to_the_help(sapwood, words):
    result = sapwood(*words.split())
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: ")
    assert f"fix: sapwood {words.split()[0]} --help" in result.err


def test_a_common_option_may_stand_before_or_after_the_command(sapwood, project):
    before, after = sapwood("--json", "list"), sapwood("list", "--json")
    assert json.loads(before.out) == json.loads(after.out) == {"items": [], "next": None}


def test_json_is_refused_where_there_is_none(sapwood, project):
    result = sapwood("--json", "migrate")
    assert (result.code, result.out) == (2, "")
    assert "migrate has no --json" in result.err


def test_another_directory_can_be_worked_in(sapwood, project, monkeypatch):
    os.chdir("/")
    assert sapwood("-C", str(project), "list").code == 0
    os.chdir("/")
    assert sapwood("list", "-C", str(project)).code == 0


def test_a_directory_that_is_not_there_is_a_usage_error(sapwood, folder):
    result = sapwood("-C", "nowhere", "list")
    assert result.code == 2
    assert "nowhere" in result.err


def test_an_unexpected_error_is_one_line_and_a_way_to_see_more(sapwood, project, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("boom\x1b")

    monkeypatch.setattr("sapwood.cli.jobs.reason", broken)
    sapwood("enqueue", "WelcomeEmail", "user_id=1")
    result = sapwood("show", "1")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("error: unexpected RuntimeError: boom\\x1b\n  fix: add -v")
    assert "Traceback" in sapwood("show", "1", "-v").err
    monkeypatch.setenv("SAPWOOD_TRACEBACK", "1")
    assert "Traceback" in sapwood("show", "1").err


def test_a_database_out_of_reach_ends_with_4(sapwood, project, monkeypatch):
    def unreachable(*args, **kwargs):
        raise StoreUnavailable("the database cannot be reached", why="refused", mend="start it")

    monkeypatch.setattr("sapwood.adapters.sqlalchemy.SQLAlchemyAdapter.jobs", unreachable)
    result = sapwood("list")
    assert result == (4, "", "error: the database cannot be reached\n  why: refused\n  fix: start it\n")


def test_an_interrupt_ends_with_130(sapwood, project, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("sapwood.adapters.sqlalchemy.SQLAlchemyAdapter.jobs", interrupted)
    assert sapwood("list") == (130, "", "\ninterrupted\n")


def test_a_reader_that_has_had_enough_is_no_error(project):
    command = f"{sys.executable} -m sapwood list --json | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, cwd=project)
    assert done.stderr == ""


def test_colour_is_given_on_demand_and_withheld_by_default(sapwood, project, monkeypatch):
    sapwood("enqueue", "WelcomeEmail", "user_id=1")
    assert "\x1b[" not in sapwood("list").out
    assert "\x1b[" in sapwood("list", "--color", "always").out
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[" in sapwood("list").out
    assert "\x1b[" in sapwood("nonsense").err
    assert "\x1b[" not in sapwood("--color", "never", "list").out


def test_an_encoding_without_signs_is_no_obstacle(project):
    environ = os.environ | {"PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "sapwood", "worke"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=project, env=environ)
    assert done.stderr.startswith('error: no command "worke" - did you mean "work"?')


@pytest.mark.parametrize("name", EVERY_COMMAND)
def test_the_page_on_the_command_line_names_every_command_and_option(name):
    page = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()
    assert f"`sapwood {name}" in page
    for option in EVERY_COMMAND[name].params:
        if option not in EVERY_COMMAND[name].common and isinstance(option, click.Option):
            assert any(spelling in page for spelling in option.opts)

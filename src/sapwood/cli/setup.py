"""``sapwood setup``: an app, the line that names it, and its tables."""

import re
import tomllib
from pathlib import Path

import click

from sapwood.cli.command import Command, Invocation, invocation
from sapwood.cli.files import Change, apply
from sapwood.cli.output import say, tell
from sapwood.cli.problems import Misused, Refused
from sapwood.errors import ConfigurationError, NoApp

_REFERENCE = "jobs:app"
_IN_A_FILE = '''\
"""The background jobs of this project. The modules of this package hold them."""

from pathlib import Path

from sapwood import Sapwood

database = Path(__file__).resolve().parent.parent / "{path}"

app = Sapwood(f"sqlite:///{{database}}", imports=["jobs"])
'''
_ELSEWHERE = '''\
"""The background jobs of this project. The modules of this package hold them."""

from sapwood import Sapwood

app = Sapwood({url}, imports=["jobs"])
'''


@click.command(
    "setup",
    cls=Command,
    short_help="Prepare this project for background jobs.",
    examples=("sapwood setup", "sapwood setup --dry-run", "sapwood setup --database sqlite:///data/jobs.db"),
    after="Running it again changes nothing that is in order.",
)
@click.option("--database", metavar="URL", help="Where jobs are kept.  [default: sqlite:///jobs.db]")
@click.option("--dry-run", is_flag=True, help="Show what would be written, write nothing.")
def setup_command(database: str | None, *, dry_run: bool) -> None:
    """Prepare this project for background jobs.

    Writes the package jobs/ with the app in it, names the app in
    pyproject.toml, and creates the tables in a SQLite file.
    """
    call = invocation()
    root = Path.cwd()
    url = _checked(database or "sqlite:///jobs.db")
    reference = _existing(call)
    if reference is not None and database is not None:
        raise Refused(
            f"this project has an app already: {reference}",
            mend="change its database where the app is made, then run: sapwood migrate",
        )
    changes = [] if reference is not None else [_app(root, url)]
    if reference is None or "app" not in call.settings.table:
        changes.append(_named(root, reference or _REFERENCE))
    if reference is not None:
        say(f"  {'keep':<6}  {reference}")
    written = apply(changes, root, dry_run=dry_run)
    if dry_run:
        tell(f"Nothing was written: --dry-run. Without it, {written} files." if written else "Nothing to do.")
        return
    _migrate()
    say()
    say("Next:  sapwood generate job WelcomeEmail user_id:int    your first job")
    say("       sapwood work                                     runs what is enqueued")


def _checked(url: str) -> str:
    """Return the URL if an app could be made with it: what could not be used must not be written down."""
    from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter  # noqa: PLC0415 - `sapwood setup --help` needs none

    if not re.match(r"[a-z][a-z0-9+]*:", url):
        raise Misused(f'"{url}" is no database URL', mend="write one such as sqlite:///jobs.db")
    SQLAlchemyAdapter(url)
    file = _sqlite_file(url)
    if file is not None and not Path(file).parent.is_dir():
        raise Misused(f"there is no folder {Path(file).parent}", mend=f"mkdir -p {Path(file).parent}")
    return url


def _sqlite_file(url: str) -> str | None:
    found = re.fullmatch(r"sqlite:///(?!:memory:)([^?#]+)", url)
    return found[1] if found else None


def _existing(call: Invocation) -> str | None:
    """Return how the app that is there is named, None where there is none."""
    try:
        return call.project.name
    except NoApp:
        named = call.settings.table.get("app")
        if call.app is not None or named not in {None, _REFERENCE}:
            raise
        return None


def _app(root: Path, url: str) -> Change:
    file = root / "jobs" / "__init__.py"
    text = _text(url)
    module = root / "jobs.py"
    if module.exists():
        raise Refused(
            "jobs.py is in the way",
            why="a package jobs/ beside it would be imported in its stead",
            mend=f"give it an app of its own:\n{_lines(text)}\nor rename it",
        )
    if file.exists() and file.read_text(encoding="utf-8").strip():
        raise Refused(
            "jobs/__init__.py is there already and holds no Sapwood app", mend=f"add one to it:\n{_lines(text)}"
        )
    return Change(file, text, "the app; jobs go beside it")


def _text(url: str) -> str:
    file = _sqlite_file(url)
    if file is not None and not Path(file).is_absolute():
        return _IN_A_FILE.format(path=file.replace("\\", "/").replace('"', '\\"'))
    return _ELSEWHERE.format(url='"' + url.replace("\\", "\\\\").replace('"', '\\"') + '"')


def _lines(text: str) -> str:
    return "\n".join("    " + line for line in text.splitlines()[2:] if line)


def _named(root: Path, reference: str) -> Change:
    """Return pyproject.toml with the app named in it, everything else as it was."""
    file = root / "pyproject.toml"
    before = ""
    if file.exists():
        with file.open(encoding="utf-8", newline="") as stream:
            before = stream.read()
    end = "\r\n" if "\r\n" in before else "\n"
    line = f'app = "{reference}"{end}'
    header = re.search(r"^[ \t]*\[tool\.sapwood\][^\r\n]*(?:\r?\n|$)", before, re.MULTILINE)
    if header:
        start = before[: header.end()]
        after = start + ("" if start.endswith("\n") else end) + line + before[header.end() :]
    else:
        gap = "" if not before else end if before.endswith("\n") else end * 2
        after = f"{before}{gap}[tool.sapwood]{end}{line}"
    _check(file, before, after, reference)
    return Change(file, after, f'[tool.sapwood] app = "{reference}"')


def _check(file: Path, before: str, after: str, reference: str) -> None:
    """Make sure that the text with the line in it means what it meant, and that."""
    expected = tomllib.loads(before)
    try:
        expected.setdefault("tool", {}).setdefault("sapwood", {})["app"] = reference
        same = tomllib.loads(after) == expected
    except (tomllib.TOMLDecodeError, AttributeError):
        same = False
    if not same:
        raise ConfigurationError(f"cannot add to {file.name}", mend=f'add to it: [tool.sapwood] app = "{reference}"')


def _migrate() -> None:
    """Create the tables where that needs nobody's leave: in a SQLite file."""
    call = Invocation()
    project = call.project
    adapter = project.adapter()
    if not adapter.describe().startswith("sqlite"):
        return
    steps = adapter.migrate()
    say(f"  {'tables':<6}  {'created in' if steps else 'up to date in'} {adapter.describe()}")

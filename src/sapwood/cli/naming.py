"""Names and arguments for generated code: from what people type to what Python can read."""

import ast
import builtins
import keyword
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from math import isfinite
from uuid import UUID

from msgspec import Struct

from sapwood.cli.problems import Misused


class JobName(Struct, frozen=True):
    """One name in the two forms that code needs."""

    camel: str
    snake: str


class Kind(Struct, frozen=True):
    """A type that an argument may have."""

    annotation: str
    example: str
    """Python source of a value."""

    json: str
    """The same value in JSON."""

    imports: frozenset[str] = frozenset()


class Argument(Struct, frozen=True):
    """One argument of ``perform``."""

    name: str
    annotation: str
    default: str | None
    """Python source, None where there is no default."""

    example: str
    """Python source of a value to test with."""

    said: str
    """The same value as ``sapwood enqueue`` takes it."""

    imports: frozenset[str]


_KINDS = {
    kind.annotation: kind
    for kind in (
        Kind("int", "1", "1"),
        Kind("str", '"text"', '"text"'),
        Kind("float", "1.5", "1.5"),
        Kind("bool", "True", "true"),
        Kind("bytes", 'b"bytes"', '"Ynl0ZXM="'),
        Kind(
            "datetime",
            "datetime(2030, 1, 2, 3, 4, tzinfo=UTC)",
            '"2030-01-02T03:04:00Z"',
            frozenset({"from datetime import UTC, datetime"}),
        ),
        Kind("date", "date(2030, 1, 2)", '"2030-01-02"', frozenset({"from datetime import date"})),
        Kind("UUID", "UUID(int=1)", f'"{UUID(int=1)}"', frozenset({"from uuid import UUID"})),
        Kind("Decimal", 'Decimal("1.50")', '"1.50"', frozenset({"from decimal import Decimal"})),
    )
}
_SPELLINGS = {name.lower(): name for name in _KINDS} | {"string": "str", "integer": "int", "boolean": "bool"}
_CONTAINERS = {"list": "[{}]", "set": "{{{}}}", "tuple": "({},)"}


def job_name(text: str) -> JobName:
    """Return the class and the module that ``text`` means: WelcomeEmail and welcome_email, in whatever case it is.

    Raises:
        Misused: Python could not have a class or a module of that name.
    """
    words = [word for part in re.split(r"[-_\s]+", text) for word in _camel_words(part)]
    if len(words) > 1 and words[-1].lower() == "job":
        words.pop()
    snake = "_".join(word.lower() for word in words)
    camel = "".join(word[:1].upper() + word[1:] for word in words)
    if not (snake.isidentifier() and camel.isidentifier()):
        raise Misused(
            f'"{text}" cannot be the name of a job',
            why="a name is made of letters, digits and _, and does not begin with a digit",
            mend="write one such as WelcomeEmail",
        )
    if keyword.iskeyword(snake) or keyword.iskeyword(camel) or camel in {"Job", "Sapwood"} or hasattr(builtins, camel):
        raise Misused(f'"{text}" cannot be the name of a job', why="Python or Sapwood uses it", mend="say more: Send…")
    return JobName(camel, snake)


def arguments(specifications: Sequence[str]) -> list[Argument]:
    """Return the arguments that ``NAME[:TYPE][=DEFAULT]`` describe.

    Raises:
        Misused: a name, a type or a default that Python or the store could not have.
    """
    found: list[Argument] = []
    for specification in specifications:
        argument = _argument(specification)
        if any(argument.name == other.name for other in found):
            raise Misused(f'the argument "{argument.name}" is there twice')
        if found and found[-1].default is not None and argument.default is None:
            raise Misused(
                f'the argument "{argument.name}" has no default, but follows one that has',
                mend=f'put it before "{found[-1].name}", or give it a default too',
            )
        found.append(argument)
    return found


def _camel_words(text: str) -> list[str]:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", text).split()


def _argument(specification: str) -> Argument:
    left, equals, said = specification.partition("=")
    name, _, kind = left.partition(":")
    name, kind = name.strip(), kind.strip() or "str"
    if not name.isidentifier() or keyword.iskeyword(name) or name == "self":
        raise Misused(
            f'"{name}" cannot be the name of an argument (in "{specification}")', mend="write NAME:TYPE, user_id:int"
        )
    try:
        meant = _kind(ast.parse(kind, mode="eval").body)
    except (SyntaxError, ValueError) as error:
        raise Misused(
            f'"{kind}" is no type that an argument can have (in "{specification}")',
            why=f"the types are {', '.join(_KINDS)}; list[…], set[…], tuple[…], dict[str, …] of them; … | None",
            mend=f"write one of them, or {name} alone for a str, and change the code afterwards",
        ) from error
    default = _default(name, meant.annotation, said) if equals else None
    nullable = default == "None" and "None" not in meant.annotation
    annotation = f"{meant.annotation} | None" if nullable else meant.annotation
    return Argument(name, annotation, default, meant.example, meant.json.strip('"'), meant.imports)


def _kind(node: ast.expr) -> Kind:
    match node:
        case ast.Name(id=name) if name.lower() in _SPELLINGS:
            return _KINDS[_SPELLINGS[name.lower()]]
        case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[ast.Name(id="str"), item])):
            of = _kind(item)
            example = f'{{"key": {of.example}}}'
            return Kind(f"dict[str, {of.annotation}]", example, f'{{"key": {of.json}}}', of.imports)
        case ast.Subscript(value=ast.Name(id="set"), slice=ast.Subscript()):
            pass  # Python cannot put one of these into a set
        case ast.Subscript(value=ast.Name(id="list" | "set" | "tuple" as outer), slice=item):
            of = _kind(item)
            return Kind(f"{outer}[{of.annotation}]", _CONTAINERS[outer].format(of.example), f"[{of.json}]", of.imports)
        case ast.BinOp(left=item, op=ast.BitOr(), right=ast.Constant(value=None)):
            of = _kind(item)
            return Kind(f"{of.annotation} | None", of.example, of.json, of.imports)
    raise ValueError(ast.unparse(node))


def _default(name: str, annotation: str, said: str) -> str:
    bare = annotation.removesuffix(" | None")
    if said == "None":
        return said
    try:
        return _WRITERS[bare](said)
    except (ValueError, InvalidOperation, KeyError) as error:
        raise Misused(
            f'"{said}" is no default for {name}:{annotation}',
            mend=f"write a {bare}, or None" if bare in _KINDS else "write None, and change the code afterwards",
        ) from error


def _quoted(text: str) -> str:
    written = repr(text)
    return written if '"' in text else f'"{written[1:-1]}"'


def _number(said: str) -> str:
    value = float(said)
    if not isfinite(value):
        raise ValueError(said)
    return repr(value)


def _truth(said: str) -> str:
    return {"true": "True", "yes": "True", "1": "True", "false": "False", "no": "False", "0": "False"}[said.lower()]


def _day(said: str) -> str:
    day = date.fromisoformat(said)
    return f"date({day.year}, {day.month}, {day.day})"


_WRITERS: Mapping[str, Callable[[str], str]] = {
    "str": _quoted,
    "bytes": lambda said: "b" + _quoted(said.encode("ascii").decode()),
    "int": lambda said: str(int(said)),
    "float": _number,
    "bool": _truth,
    "date": _day,
    "datetime": lambda said: f'datetime.fromisoformat("{datetime.fromisoformat(said).isoformat()}")',
    "UUID": lambda said: f'UUID("{UUID(said)}")',
    "Decimal": lambda said: f'Decimal("{Decimal(said)}")',
}
"""How to write a default, by type, as Python source."""

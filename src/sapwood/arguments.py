"""The arguments of ``perform``: bound to its signature, written as JSON, read back as what they were.

The rule: **what is decoded equals what was passed, types included**, however deep. What would not is refused where it
is passed, by its path. An annotation widens the rule, because it says what comes out: a value may be given in its JSON
form (``"2030-01-01"`` for a ``date``, 3 for a ``float``), or as a relative of the declared type that compares equal (a
tuple for a ``list[int]``, an ``IntEnum`` for an ``int``).

Values may be secrets: errors name paths and types alone, and no other error hangs on them.
"""

import dataclasses
import difflib
import inspect
import json
import math
import re
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import cached_property
from types import GenericAlias, NoneType, SimpleNamespace, UnionType
from typing import (
    Any,
    NewType,
    NoReturn,
    NotRequired,
    Required,
    TypeVar,
    Union,
    Unpack,
    get_args,
    get_origin,
    get_type_hints,
)
from uuid import UUID

import msgspec
from msgspec import UNSET
from msgspec.inspect import AnyType, CustomType, type_info

from sapwood.errors import ArgumentsMismatch, ArgumentsTooLarge, UnstorableArguments

MAX_BYTES = 1_048_576
"""The most JSON that one job may bring along. What is larger belongs in a table or a file."""

MAX_DEPTH = 100
"""The deepest nesting. A fixed number, because Python's own limit depends on how deep the caller stands already."""

_MAX_BITS = 14_000
"""The largest integer: Python reads no more than 4,300 digits."""

_LONGEST_NAME = 40
"""A longer key in a path is more likely a secret than a name."""

_KEY = "(key)"
"""Ends the path of a key, as opposed to that of its value."""

_SCALARS: frozenset[type] = frozenset({str, int, bool, float, NoneType})
_JSON = _SCALARS | {list, dict}
_HARMLESS = frozenset({str, bool, NoneType})
_ARRAYS = (list, tuple, set, frozenset)
_KEYS = (str, int, float, Decimal, date, time, timedelta, UUID, Enum)
_LEAVES = (*_KEYS, NoneType, bytes, bytearray)
_TYPE_NODES = (msgspec.inspect.Type, msgspec.inspect.Field)

_POSITIONAL_ONLY = inspect.Parameter.POSITIONAL_ONLY
_KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY
_VAR_POSITIONAL = inspect.Parameter.VAR_POSITIONAL
_VAR_KEYWORD = inspect.Parameter.VAR_KEYWORD

_json = msgspec.json.Encoder()


class Codec:
    """How the arguments of one function travel: bound, encoded, decoded.

    Args:
        function: What will be called, such as ``perform``. Its annotations are resolved at the first use.
        skip: How many leading parameters are not the job's (``self``).
    """

    def __init__(self, function: Callable[..., Any], *, skip: int = 0) -> None:
        self._function = function
        self._skip = skip

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """Return the arguments as a JSON object by parameter name, in ASCII. Defaults are not stored.

        Raises:
            ArgumentsMismatch: The function does not accept them.
            UnstorableArguments: They would not come back as they are.
            ArgumentsTooLarge: They take more than 1 MiB.
        """
        shape = self._shape
        bound = shape.bind(args, kwargs)
        return _limited(shape.encode_plainly(bound) or shape.encode_carefully(bound), "the arguments")

    def decode(self, text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments with which to call the function as it is declared now.

        Raises:
            ArgumentsMismatch: A stored parameter is gone, or one without a default is new.
            UnstorableArguments: A value does not convert to the type that is declared.
            ArgumentsTooLarge: They take more than 1 MiB, which :meth:`encode` never does.
        """
        shape = self._shape
        _limited(text, "the stored arguments")
        stored = shape.decode_plainly(text)
        return shape.call(shape.decode_carefully(text) if stored is None else stored)

    def encode_result(self, value: Any) -> str:
        """Return what the function returned as JSON, by its return annotation.

        Raises:
            UnstorableArguments: It would not come back as it is.
            ArgumentsTooLarge: It takes more than 1 MiB.
        """
        return _limited(self._result.encode(value), "the result")

    def decode_result(self, text: str) -> Any:
        """Return the result that :meth:`encode_result` wrote.

        Raises:
            UnstorableArguments: It does not convert to the return annotation.
        """
        return self._result.decode(text)

    @cached_property
    def _shape(self) -> "_Shape":
        return _Shape(self._function, self._skip)

    @cached_property
    def _result(self) -> "_Place":
        return _Place("result", _signature(self._function).return_annotation, self._function)


class _Shape:
    """What a function accepts, with a place for each parameter by the key it is stored under."""

    def __init__(self, function: Callable[..., Any], skip: int) -> None:
        declared = list(_signature(function).parameters.values())[skip:]
        self._title = _title(function)
        self._declared = f"{self._title} is declared as {inspect.Signature(declared)}"
        self._parameters = [one for parameter in declared for one in _unpacked(parameter, function)]
        self._signature = inspect.Signature(self._parameters)
        self.places = {_key(p): _Place(f"args.{p.name}", p.annotation, function, kind=p.kind) for p in self._parameters}

        named = [p for p in self._parameters if p.kind not in (_VAR_POSITIONAL, _VAR_KEYWORD)]
        self._positional = [p.name for p in named if p.kind is not _KEYWORD_ONLY]
        self._positional_only = [p.name for p in named if p.kind is _POSITIONAL_ONLY]
        self._by_name = frozenset(p.name for p in named if p.kind is not _POSITIONAL_ONLY)
        self._required = frozenset(p.name for p in named if p.default is p.empty)
        self._decoder = self._build_decoder()

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values by the key they are stored under."""
        if len(args) <= len(self._positional):  # nearly every call; Signature.bind takes several times as long
            bound = dict(zip(self._positional, args, strict=False))
            bound.update(kwargs)
            if len(bound) == len(args) + len(kwargs) and self._required <= bound.keys() <= self._by_name:
                return bound
        try:
            arguments = self._signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            problem = str(error)
        else:
            kinds = self._signature.parameters
            return {
                _key(kinds[name]): list(value) if kinds[name].kind is _VAR_POSITIONAL else value
                for name, value in arguments.items()
            }
        raise self._mismatch(problem)

    def encode_plainly(self, bound: dict[str, Any]) -> str | None:
        """Encode what cannot change on its way: scalars of exactly the declared types. None: it takes more care."""
        for key, value in bound.items():
            kind = type(value)
            if kind not in self.places[key].plain or (kind is float and not math.isfinite(value)):
                return None
        try:
            data = msgspec.json.format(_json.encode(bound), indent=0)
        except ValueError:  # a lone surrogate, or an integer of more digits than Python reads
            return None
        return data.decode() if data.isascii() else None

    def encode_carefully(self, bound: dict[str, Any]) -> str:
        """Encode one by one, and prove of each that it comes back."""
        parts = (f"{json.dumps(key)}: {self.places[key].encode(value)}" for key, value in bound.items())
        return f"{{{', '.join(parts)}}}"

    def decode_plainly(self, text: str) -> dict[str, Any] | None:
        """Decode all at once. None: something does not fit, or only the slower reader can read it."""
        try:
            values = msgspec.structs.astuple(self._decoder.decode(text))
        except Exception:  # noqa: BLE001 - runs code of the user's types; the careful way names what failed
            return None
        return {key: value for key, value in zip(self.places, values, strict=True) if value is not UNSET}

    def decode_carefully(self, text: str) -> dict[str, Any]:
        """Decode one by one, and name what does not fit."""
        document = _parsed(text)
        if not isinstance(document, dict) or _is_deep(document):
            raise UnstorableArguments(
                f"the stored arguments of {self._title} cannot be read",
                why="they are no JSON object",
                mend="edit the arguments of the job, or delete it",
            )
        for key in sorted(document.keys() - self.places.keys()):
            key = key if len(key) <= _LONGEST_NAME else f"{key[:_LONGEST_NAME]}…"  # noqa: PLW2901 - as it is shown
            raise self._outgrown(
                f"has no parameter {key}, and one was stored", f"accept {key} until such jobs are done"
            )
        for name in sorted(self._required - document.keys()):
            raise self._outgrown(f"needs {name}, and none was stored", f"give {name} a default")
        return {key: self.places[key].decode(json.dumps(value)) for key, value in document.items()}

    def call(self, stored: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the decoded values as positional and named arguments."""
        more_args: list[Any] = []
        more_kwargs: dict[str, Any] = {}
        for parameter in self._parameters[len(self._positional) :]:
            if parameter.kind is _VAR_POSITIONAL:
                more_args = stored.pop(_key(parameter), more_args)
            elif parameter.kind is _VAR_KEYWORD:
                more_kwargs = stored.pop(_key(parameter), more_kwargs)

        # An optional parameter that was not passed ends what goes by position, unless something behind it must.
        by_position = [name for name in self._positional_only if name in stored]
        last = self._positional[-1:] if more_args else by_position[-1:]
        forced = self._positional.index(last[0]) if last else -1
        args: list[Any] = []
        for index, name in enumerate(self._positional):
            if name in stored and len(args) == index:
                args.append(stored.pop(name))
            elif index <= forced:
                args.append(self._signature.parameters[name].default)
        return (*args, *more_args), stored | more_kwargs

    def _build_decoder(self) -> msgspec.json.Decoder[Any]:
        """One struct for all parameters: msgspec then reads the whole object in one step."""
        names = {f"p{index}": key for index, key in enumerate(self.places)}
        fields = [
            (name, self.places[key].type) if key in self._required else (name, self.places[key].type, UNSET)
            for name, key in names.items()
        ]
        struct = msgspec.defstruct("Arguments", fields, rename=names, forbid_unknown_fields=True, kw_only=True)
        return msgspec.json.Decoder(struct, dec_hook=_revived)

    def _mismatch(self, problem: str) -> ArgumentsMismatch:
        unexpected = re.search("unexpected keyword argument '(.*)'", problem)
        near = difflib.get_close_matches(unexpected[1], self._by_name, n=1) if unexpected else []
        return ArgumentsMismatch(
            f"{self._title} does not accept these arguments: {problem}",
            why=self._declared,
            mend=f"did you mean {near[0]}?" if near else "pass what it declares",
        )

    def _outgrown(self, problem: str, mend: str) -> ArgumentsMismatch:
        return ArgumentsMismatch(
            f"{self._title} {problem}", why=self._declared, mend=f"{mend}, or edit the arguments of the job"
        )


class _Place:
    """Where one value is kept: a parameter, or the result."""

    def __init__(
        self, path: str, annotation: Any, function: Callable[..., Any], kind: Any = inspect.Parameter.KEYWORD_ONLY
    ) -> None:
        self._path = path
        hint, self._note = _resolved(function, annotation)
        self._annotated = hint is not Any
        self._declared = f"{_title(function)} declares {_written_out(annotation)}"
        wrapped: dict[Any, Any] = {
            _VAR_POSITIONAL: GenericAlias(list, hint),
            _VAR_KEYWORD: GenericAlias(dict, (str, hint)),
        }
        self.type = wrapped.get(kind, hint)
        self.plain = _plain_types(self.type)
        self._open = _leaves_open(self.type)
        self._decoder = msgspec.json.Decoder(self.type, dec_hook=_revived)

    def encode(self, value: Any) -> str:
        """Return the value as JSON, after the proof that it comes back."""
        if type(value) is str and str in self.plain and value.isprintable():  # a lone surrogate is not printable
            return json.dumps(value)
        _examine(value, self._path)
        text = _limited(self._written(value), self._path)
        back, misfit = self._read(text)
        if misfit is not None:
            raise UnstorableArguments(
                f"{self._path}{misfit.path or f': {_name(value)}'} cannot be stored",
                why=f"{self._declared}{misfit.why}{self._note}",
                mend="pass what is declared",
            )
        self._compare(value, back, self._path, declared=self._annotated)
        return text

    def decode(self, text: str) -> Any:
        """Return the value that was stored."""
        value, misfit = self._read(text)
        if misfit is not None:
            raise UnstorableArguments(
                f"{self._path}{misfit.path}: what was stored does not fit",
                why=f"{self._declared}{misfit.why}{self._note}",
                mend="declare the type that was stored until such jobs are done, or edit the arguments of the job",
            )
        return value

    def _written(self, value: Any) -> str:
        try:
            builtins = msgspec.to_builtins(value, str_keys=True, enc_hook=_reduced)
            return json.dumps(builtins, allow_nan=False)
        except Exception:  # noqa: BLE001 - runs code of the user's types; what they say may hold values
            problem = UnstorableArguments(
                f"{self._path}: {_name(value)} cannot be stored",
                why="it has parts that cannot be written as JSON",
                mend="pass plain data",
            )
        raise problem

    def _read(self, text: str) -> tuple[Any, "_Misfit | None"]:
        try:
            return self._decoder.decode(text), None
        except Exception as error:  # noqa: BLE001 - runs code of the user's types
            misfit = _misfit(error)
        if "\\ud" not in text:
            return None, misfit
        try:  # msgspec reads no lone surrogates; the slower reader does
            return msgspec.convert(_parsed(text), self.type, str_keys=True, dec_hook=_revived), None
        except Exception as error:  # noqa: BLE001 - as above
            return None, _misfit(error)

    def _compare(self, sent: Any, back: Any, path: str, *, declared: bool) -> None:
        """Refuse what came back as something else, at the deepest path that is to blame."""
        if type(sent) is not type(back) and not _is_relative(sent, back, declared=declared):
            raise self._changed(sent, back, path)
        pairs = _pairs(sent, back)
        if pairs is None:
            if not _is_same(sent, back):
                raise self._changed(sent, back, path)
            return
        for suffix, one, other in pairs:
            if type(one) is type(other) and type(one) in _SCALARS and one == other:
                continue
            if other is UNSET:
                raise self._lost(one, path + suffix)
            self._compare(one, other, path + suffix, declared=not self._open)

    def _changed(self, sent: Any, back: Any, path: str) -> UnstorableArguments:
        kind = _name(sent)
        if type(sent) is type(back):
            why, mend = "JSON would give back another value", "pass it in a simpler form"
            if isinstance(sent, datetime | time):
                why, mend = "JSON keeps a UTC offset in minutes, and no time zone", "convert it to UTC"
        elif path.endswith(_KEY):
            path, kind = path.removesuffix(_KEY), f"key {kind}"
            why, mend = f"the key would come back as {_name(back)}", "declare the type of the keys, or use str"
        elif self._annotated and not self._open:
            why, mend = f"{self._declared}, and JSON would change it", "pass what is declared"
        else:
            why = f"{kind} needs an annotation to come back as one, and not as {_name(back)}"
            mend = f"annotate it, or {_suggestion(sent, path) or f'pass {_name(back)}'}"
        return UnstorableArguments(f"{path}: {kind} cannot be stored", why=why + self._note, mend=mend)

    def _lost(self, sent: Any, path: str) -> UnstorableArguments:
        return UnstorableArguments(
            f"{path}: {_name(sent)} cannot be stored",
            why=f"{self._declared}, and that has no room for it{self._note}",
            mend="pass what is declared",
        )


class _Misfit(msgspec.Struct, frozen=True):
    """Where and why a JSON value is not what an annotation asks for."""

    path: str
    why: str


def _misfit(error: Exception) -> _Misfit:
    """Read msgspec's message, as far as it can be trusted to name types and not values."""
    message, _, where = str(error).partition(" - at ")
    path = re.search(r"`\$(.*)`", where)
    told = re.fullmatch(r"Expected `[^`]*`, got `[^`]*`|Object missing required field `\w*`", message)
    return _Misfit((path[1] if path else "").replace("[...]", "{…}"), f" ({told[0]})" if told else "")


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(function)


def _title(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__qualname__', type(function).__name__)}()"


def _written_out(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return "no type"
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _key(parameter: inspect.Parameter) -> str:
    """Return the name under which a parameter is stored: as it is written in the signature."""
    if parameter.kind is _VAR_POSITIONAL:
        return f"*{parameter.name}"
    return f"**{parameter.name}" if parameter.kind is _VAR_KEYWORD else parameter.name


def _unpacked(parameter: inspect.Parameter, function: Callable[..., Any]) -> Iterator[inspect.Parameter]:
    """Take ``**options: Unpack[Options]`` for what it means: a named parameter for each of its keys."""
    hint, _ = _evaluated(function, parameter.annotation)
    if parameter.kind is not _VAR_KEYWORD or get_origin(hint) is not Unpack:
        yield parameter
        return
    (options,) = get_args(hint)
    for name, annotation in get_type_hints(options, include_extras=True).items():
        mark = get_origin(annotation)
        required = mark is Required or (name in options.__required_keys__ and mark is not NotRequired)
        (bare,) = get_args(annotation) if mark in (Required, NotRequired) else (annotation,)
        yield inspect.Parameter(name, _KEYWORD_ONLY, annotation=bare, default=parameter.empty if required else UNSET)


def _resolved(function: Callable[..., Any], annotation: Any) -> tuple[Any, str]:
    """Return a type for msgspec, and what to add to an error if the annotation could not be used."""
    hint, note = _evaluated(function, annotation)
    if hint is object or isinstance(hint, TypeVar) or get_origin(hint) is Unpack:
        return Any, note
    if get_origin(hint) is Iterable:
        hint = GenericAlias(Sequence, get_args(hint))  # msgspec knows no Iterable; what comes out is a list either way
    try:
        msgspec.json.Decoder(hint)
    except Exception as error:  # noqa: BLE001 - msgspec looks into the user's types, which may refuse in any way
        return Any, f" (its annotation cannot be used: {error})"
    return hint, note


def _evaluated(function: Callable[..., Any], annotation: Any) -> tuple[Any, str]:
    if annotation is inspect.Parameter.empty:
        return Any, ""
    stub = SimpleNamespace(__annotations__={"it": annotation})
    scope = getattr(inspect.unwrap(function), "__globals__", {})
    try:
        return get_type_hints(stub, globalns=scope, include_extras=True)["it"], ""
    except Exception as error:  # noqa: BLE001 - an annotation is any expression
        return Any, f" (its annotation cannot be resolved: {type(error).__name__}: {error})"


def _plain_types(hint: Any) -> frozenset[type]:
    """Return the scalars that are stored and read back under this annotation without a change."""
    if hint is Any:
        return _SCALARS
    while isinstance(hint, NewType):
        hint = hint.__supertype__
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return frozenset(members) if _SCALARS.issuperset(members) else frozenset()


def _leaves_open(hint: Any) -> bool:
    """Whether some part of a type is not declared: ``dict[str, Any]``, a bare ``list``."""
    waiting: list[Any] = [type_info(hint)]
    seen: set[int] = set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, AnyType | CustomType) and not _is_model(getattr(node, "cls", None)):
            return True
        if id(node) in seen:
            continue
        seen.add(id(node))
        for name in node.__struct_fields__:
            part = getattr(node, name)
            waiting.extend(p for p in (part if isinstance(part, tuple) else (part,)) if isinstance(p, _TYPE_NODES))
    return False


def _examine(value: Any, path: str, depth: int = 0) -> None:
    """Refuse what cannot be written as JSON, by its path."""
    if depth > MAX_DEPTH:
        raise UnstorableArguments(
            f"{path[:_LONGEST_NAME]}…: nested too deep to be stored",
            why=f"it goes deeper than {MAX_DEPTH} levels, or contains itself",
            mend="pass something flatter",
        )
    if isinstance(value, _LEAVES):
        _examine_number(value, path)
        return
    parts = _parts(value)
    if parts is None or hasattr(type(value), "_sa_class_manager"):  # a row of SQLAlchemy's is more than its fields
        raise UnstorableArguments(
            f"{path}: {_name(value)} cannot be stored",
            why=f"{_name(value)} is no type that JSON can hold",
            mend=_suggestion(value, path) or "pass plain data",
        )
    if isinstance(value, dict):
        _examine_keys(value, path)
    for suffix, part in parts:
        if type(part) not in _HARMLESS:
            _examine(part, path + suffix, depth + 1)


def _examine_keys(value: dict[Any, Any], path: str) -> None:
    for key in value:
        if isinstance(key, bool) or not isinstance(key, _KEYS):
            raise UnstorableArguments(
                f"{path}{{{_name(key)}}}: key {_name(key)} cannot be stored",
                why=f"{_name(key)} is no type that a key in JSON can hold",
                mend="use keys of type str",
            )
        _examine_number(key, f"{path}{{{_name(key)}}}")


def _examine_number(value: Any, path: str) -> None:
    finite = value.is_finite() if isinstance(value, Decimal) else not isinstance(value, float) or math.isfinite(value)
    if not finite:
        raise UnstorableArguments(
            f"{path}: {'NaN' if 'nan' in str(value).lower() else 'infinity'} cannot be stored",
            why="it is no number that JSON can hold",
            mend="pass None, or leave it out",
        )
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        raise UnstorableArguments(
            f"{path}: an int of this size cannot be stored",
            why=f"Python reads back no more than {sys.int_info.default_max_str_digits} digits",
            mend="pass it as bytes",
        )


def _suggestion(value: Any, path: str) -> str:
    """Say what to pass instead, without touching the object: reading an attribute may ask a database."""
    name = path.removeprefix("args.")
    for key in ("id", "pk"):
        if key in getattr(value, "__dict__", ()) or hasattr(type(value), key):
            return f"pass {name}.{key}"
    return f"pass list({name})" if isinstance(value, Iterator | range | deque) else ""


def _parts(value: Any) -> list[tuple[str, Any]] | None:
    """Return what a value is made of, each with its step in a path; None for what has no parts."""
    if _is_model(type(value)):
        return _model_parts(value)
    if isinstance(value, dict):
        return [(_step(key), item) for key, item in value.items()]
    if isinstance(value, set | frozenset):
        return [("{…}", item) for item in value]
    if isinstance(value, list | tuple):
        return [(f"[{index}]", item) for index, item in enumerate(value)]
    fields = _fields(type(value))
    if fields is None:
        return None
    values = ((f".{name}", getattr(value, name, UNSET)) for name in fields)
    return [(step, part) for step, part in values if part is not UNSET]


def _model_parts(model: Any) -> list[tuple[str, Any]]:
    """Return a pydantic model as it writes itself: it may hold types that only it can write."""
    try:
        return _parts(_reduced(model)) or []
    except Exception:  # noqa: BLE001 - runs code of the model; writing it will fail in turn, and say so
        return []


def _step(key: Any) -> str:
    """Show a key that is a name or a number; another one may be a secret."""
    if isinstance(key, str):
        return f".{key}" if key.isidentifier() and len(key) <= _LONGEST_NAME else "{str}"
    return f"{{{key}}}" if type(key) is int and key.bit_length() < _LONGEST_NAME else f"{{{_name(key)}}}"


def _fields(kind: type) -> tuple[str, ...] | None:
    if issubclass(kind, msgspec.Struct):
        return kind.__struct_fields__
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    attributes = getattr(kind, "__attrs_attrs__", None)
    return None if attributes is None else tuple(attribute.name for attribute in attributes)


def _pairs(sent: Any, back: Any) -> Iterator[tuple[str, Any, Any]] | None:
    """Return the parts of two values side by side, UNSET for what did not come back; None if they have no parts."""
    if isinstance(sent, _ARRAYS) and isinstance(back, _ARRAYS):
        return _paired_items(sent, back)
    if isinstance(sent, dict) and isinstance(back, dict):
        return _paired_entries(sent, back)
    if type(sent) is type(back) and _fields(type(sent)) is not None:
        return ((step, one, getattr(back, step[1:], UNSET)) for step, one in _parts(sent) or ())
    if type(sent) is dict and (_is_model(type(back)) or _fields(type(back)) is not None):
        return _paired_fields(sent, back)
    return None


def _paired_items(sent: Iterable[Any], back: Collection[Any]) -> Iterator[tuple[str, Any, Any]]:
    items = list(sent)
    if len(items) != len(back):
        yield "", sent, UNSET
    elif isinstance(back, set | frozenset):
        same = {item: item for item in back}
        converted = not any(isinstance(item, str | bytes) for item in back)  # from the JSON form, "2030-01-01"
        for item in items:
            if item in same or not (converted and type(item) is str):
                yield "{…}", item, same.get(item, UNSET)
    else:
        for index, (item, other) in enumerate(zip(items, back, strict=True)):
            yield f"[{index}]", item, other


def _paired_entries(sent: dict[Any, Any], back: dict[Any, Any]) -> Iterator[tuple[str, Any, Any]]:
    if len(sent) != len(back):
        yield from ((_step(key), item, UNSET) for key, item in sent.items() if key not in back)
    keys = {key: key for key in back} if sent.keys() == back.keys() else dict(zip(sent, back, strict=False))
    for key, item in sent.items():
        if type(key) is not str or type(keys[key]) is not str or key != keys[key]:
            yield f"{_step(key)}{_KEY}", key, keys[key]
        yield _step(key), item, back[keys[key]]


def _paired_fields(sent: dict[Any, Any], back: Any) -> Iterator[tuple[str, Any, Any]]:
    names = type(back).model_fields if _is_model(type(back)) else _fields(type(back)) or ()
    renamed = msgspec.to_builtins(back, str_keys=True, enc_hook=_reduced)
    for key, item in sent.items():
        if key in names:
            yield _step(key), item, getattr(back, key)
        elif key not in renamed:
            yield _step(key), item, UNSET


def _is_relative(sent: Any, back: Any, *, declared: bool) -> bool:
    """Whether an annotation may turn a value into one of this other type."""
    if type(sent) in _JSON:
        return True  # its JSON form: only an annotation made another type of it
    if type(back) in _JSON and not declared:
        return False
    return isinstance(sent, type(back)) or (isinstance(sent, _ARRAYS) and isinstance(back, _ARRAYS))


def _is_same(sent: Any, back: Any) -> bool:
    if type(sent) is str and not isinstance(back, str | bytes | bytearray):
        return True  # the JSON form of a date, a UUID; text for bytes is a mistake, not base64
    if type(sent) in (int, float) and type(back) not in _SCALARS:
        return True
    if isinstance(sent, datetime | time):
        offsets = sent.utcoffset() == back.utcoffset() and (sent.tzinfo is None) == (back.tzinfo is None)
        return offsets and bool(sent.replace(tzinfo=None) == back.replace(tzinfo=None))
    return bool(sent == back)


def _reduced(value: Any) -> Any:
    """Write what msgspec does not know: a pydantic model, a subclass of a plain type."""
    if _is_model(type(value)):
        return value.model_dump(mode="json", by_alias=True, round_trip=True, warnings=False)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, date | time):
        return value.isoformat()
    raise TypeError(_name(value))


def _revived(kind: Any, value: Any) -> Any:
    """Read what msgspec does not know."""
    if _is_model(kind):
        return kind.model_validate_json(json.dumps(value))
    if isinstance(value, get_origin(kind) or kind):
        return value
    raise TypeError(_name(value))


def _is_model(kind: Any) -> bool:
    """Whether it is a pydantic model. An application that has none has not imported pydantic, nor do we."""
    base = getattr(sys.modules.get("pydantic"), "BaseModel", None)
    return base is not None and isinstance(kind, type) and issubclass(kind, base)


def _parsed(text: str) -> Any:
    """Read JSON with lone surrogates in it. None for what is no JSON."""
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None


def _is_deep(document: Any) -> bool:
    """Whether something is nested deeper than what was ever encoded: to write it again would take all of the stack."""
    level = [document]
    for _ in range(MAX_DEPTH + 2):
        level = [
            part
            for value in level
            for part in (value.values() if isinstance(value, dict) else value)
            if isinstance(part, dict | list)
        ]
    return bool(level)


def _no_number(constant: str) -> NoReturn:
    raise ValueError(constant)


def _limited(text: str, what: str) -> str:
    if len(text) > MAX_BYTES:
        raise ArgumentsTooLarge(
            f"{what}: {len(text):,} bytes of JSON are too many",
            why=f"the limit is {MAX_BYTES:,} bytes",
            mend="keep the data in a table or a file, and pass its key",
        )
    return text


def _name(value: Any) -> str:
    return type(value).__name__

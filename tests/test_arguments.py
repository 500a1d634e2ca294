"""What may be passed to perform(), how it is stored, and what is refused."""

import functools
import json
import math
import re
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Optional, Required, TypedDict, TypeVar, Unpack
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

from sapwood.arguments import MAX_BYTES, Codec
from sapwood.errors import ArgumentsMismatch, ArgumentsTooLarge, InvalidArguments, UnstorableArguments

BERLIN = ZoneInfo("Europe/Berlin")
NAIVE = datetime(2030, 1, 1)  # noqa: DTZ001 - that naive ones stay naive is what is tested
SECRET = "hunter2-of-the-caller"


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Mood(StrEnum):
    GLAD = "glad"


class Mixed(Enum):
    NUMBER = 1
    WORD = "word"


@dataclass
class Address:
    street: str
    since: date | None = None
    tags: list[str] = field(default_factory=list)


@dataclass
class Grand(Address):
    towers: int = 2


@attrs.define
class Parcel:
    weight: Decimal
    to: Address


class Point(msgspec.Struct, frozen=True):
    x: float
    y: float = 0.0


class Renamed(msgspec.Struct, rename="camel"):
    first_name: str
    nick: str | msgspec.UnsetType = msgspec.UNSET


class Node(msgspec.Struct):
    value: int
    next: "Node | None" = None


class Pair(NamedTuple):
    left: int
    right: datetime


class Options(TypedDict, total=False):
    size: Required[int]
    when: date


class Customer(pydantic.BaseModel):
    name: str
    born: date | None = None
    limit: float = 0.0


class Strict(pydantic.BaseModel, strict=True):
    at: datetime = pydantic.Field(alias="moment")


class User:
    def __init__(self):
        self.id = 7
        self.name = SECRET


class Base(DeclarativeBase):
    pass


class Row(MappedAsDataclass, Base):
    __tablename__ = "rows"
    id: Mapped[int] = mapped_column(primary_key=True)


UserId = NewType("UserId", int)
M = TypeVar("M")


def taking(annotation):
    """Return a Codec for a function of one parameter, x."""

    def perform(x): ...

    perform.__annotations__["x"] = annotation
    return Codec(perform)


def untyped(x): ...


def there_and_back(annotation, value):
    codec = taking(annotation)
    args, kwargs = codec.decode(codec.encode((value,), {}))
    assert kwargs == {}
    return args[0]


def refusal(codec, *args, **kwargs):
    with pytest.raises(InvalidArguments) as caught:
        codec.encode(args, kwargs)
    error = caught.value
    assert error.what
    assert error.why
    assert error.mend
    assert error.__context__ is None
    return error


def assert_same(one, other):
    """Equal, and of the same types, however deep."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one == other
        for (key, item), (other_key, other_item) in zip(one.items(), other.items(), strict=True):
            assert_same(key, other_key)
            assert_same(item, other_item)
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for item, other_item in zip(one, other, strict=True):
            assert_same(item, other_item)
    elif isinstance(one, set | frozenset):
        assert {(type(item), item) for item in one} == {(type(item), item) for item in other}
    elif isinstance(one, datetime | time):
        assert (one.utcoffset(), one.replace(tzinfo=None)) == (other.utcoffset(), other.replace(tzinfo=None))
    else:
        assert one == other


# --- binding


def greet(user_id: int, locale: str = "en", *, loud: bool = False): ...


def everything(first, /, second=2, *ids: int, flag: bool = False, **opts: float): ...


def options(**opts: Unpack[Options]): ...


def two_first(a: int = 1, b: int = 2, /, c: int = 3): ...


def test_only_what_was_passed_is_stored_by_name_in_readable_json():
    assert Codec(greet).encode((42,), {"locale": "de"}) == '{"user_id": 42, "locale": "de"}'


def test_the_careful_way_writes_the_same_json_as_the_plain_one():
    codec = Codec(greet)
    assert codec.encode((42,), {"locale": "dü"}) == '{"user_id": 42, "locale": "d\\u00fc"}'


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "stored"),
    [
        (greet, (1,), {}, {"user_id": 1}),
        (greet, (), {"user_id": 1}, {"user_id": 1}),
        (greet, (1, "de"), {"loud": True}, {"user_id": 1, "locale": "de", "loud": True}),
        (everything, ("f",), {}, {"first": "f"}),
        (everything, ("f", 3, 4, 5), {"flag": True}, {"first": "f", "second": 3, "*ids": [4, 5], "flag": True}),
        (everything, ("f",), {"first": 1.5, "second": 3}, {"first": "f", "second": 3, "**opts": {"first": 1.5}}),
        (options, (), {"size": 3}, {"size": 3}),
        (options, (), {"size": 3, "when": date(2030, 1, 1)}, {"size": 3, "when": "2030-01-01"}),
        (two_first, (), {}, {}),
        (two_first, (5,), {"c": 6}, {"a": 5, "c": 6}),
    ],
)
def test_a_call_comes_back_as_the_same_call(function, args, kwargs, stored):
    codec = Codec(function)
    text = codec.encode(args, kwargs)
    assert json.loads(text) == stored

    def bound(args, kwargs):
        return codec.encode(args, kwargs)

    assert bound(*codec.decode(text)) == text
    function(*codec.decode(text)[0], **codec.decode(text)[1])


def test_positional_arguments_come_back_positional():
    codec = Codec(everything)
    assert codec.decode(codec.encode(("f", 3, 4), {"flag": True})) == (("f", 3, 4), {"flag": True})


def test_an_argument_after_one_that_was_left_out_comes_back_by_name():
    codec = Codec(lambda a=1, b=2, c=3: (a, b, c))
    assert codec.decode('{"c": 9}') == ((), {"c": 9})


def test_a_default_fills_the_gap_before_what_must_go_by_position():
    assert Codec(two_first).decode('{"b": 9}') == ((1, 9), {})
    assert Codec(everything).decode('{"first": "f", "*ids": [7]}') == (("f", 2, 7), {})


class WithMethods(Generic[M]):
    def method(self, x: int): ...

    @staticmethod
    def static(x: int): ...

    @classmethod
    def of_class(cls, x: int): ...

    def generic(self, x: M): ...


class OfInts(WithMethods[int]):
    pass


@pytest.mark.parametrize(
    ("function", "skip"),
    [
        (WithMethods.method, 1),
        (WithMethods().method, 0),
        (WithMethods.static, 0),
        (WithMethods.of_class, 0),
        (OfInts.generic, 1),
        (functools.wraps(WithMethods.method)(lambda *args, **kwargs: None), 1),
        (functools.partial(greet, locale="de"), 0),
    ],
)
def test_methods_and_decorated_functions_bind_like_functions(function, skip):
    codec = Codec(function, skip=skip)
    args, _ = codec.decode(codec.encode((3,), {}))
    assert args == (3,)


def test_a_decorated_function_is_bound_by_its_own_signature():
    wrapped = functools.wraps(greet)(lambda *args, **kwargs: None)
    assert refusal(Codec(wrapped), 1, size=3).what == (
        "greet() does not accept these arguments: got an unexpected keyword argument 'size'"
    )


@pytest.mark.parametrize(
    ("args", "kwargs", "problem"),
    [
        ((), {}, "missing a required argument: 'user_id'"),
        ((1, "de", True), {}, "too many positional arguments"),
        ((1,), {"user_id": 2}, "multiple values for argument 'user_id'"),
        ((1,), {"local": "de"}, "got an unexpected keyword argument 'local'"),
    ],
)
def test_a_call_that_does_not_bind_is_a_mismatch_that_shows_the_signature(args, kwargs, problem):
    error = refusal(Codec(greet), *args, **kwargs)
    assert type(error) is ArgumentsMismatch
    assert error.what == f"greet() does not accept these arguments: {problem}"
    assert error.why == "greet() is declared as (user_id: int, locale: str = 'en', *, loud: bool = False)"


def test_a_misspelt_keyword_gets_a_suggestion():
    assert refusal(Codec(greet), 1, local="de").mend == "did you mean locale?"


def test_the_leading_parameter_that_is_not_the_jobs_is_not_shown():
    assert refusal(Codec(WithMethods.method, skip=1)).why == "WithMethods.method() is declared as (x: int)"


def test_an_unpacked_typed_dict_is_checked_key_by_key():
    assert refusal(Codec(options)).what.endswith("missing a required argument: 'size'")
    assert refusal(Codec(options), size=1, sise=2).mend == "did you mean size?"
    assert refusal(Codec(options), size="3").what == "args.size: str cannot be stored"


# --- the current signature


def test_a_parameter_that_is_gone_is_a_mismatch_that_names_it():
    with pytest.raises(ArgumentsMismatch, match=r"greet\(\) has no parameter gone, and one was stored"):
        Codec(greet).decode('{"user_id": 1, "gone": 2}')


def test_a_parameter_that_is_new_and_required_is_a_mismatch_that_names_it():
    with pytest.raises(ArgumentsMismatch, match=r"greet\(\) needs user_id, and none was stored"):
        Codec(greet).decode("{}")


@pytest.mark.parametrize("stored", ["", "[", "[1]", "null", '{"user_id": NaN}', '{"user_id": 1', "[" * 200_000])
def test_stored_text_that_is_no_json_object_cannot_be_read(stored):
    with pytest.raises(UnstorableArguments, match=r"the stored arguments of greet\(\) cannot be read"):
        Codec(greet).decode(stored)


def test_a_stored_value_of_another_type_names_its_path_and_not_itself():
    with pytest.raises(UnstorableArguments) as caught:
        taking(list[Address]).decode(json.dumps({"x": [{"street": SECRET, "since": SECRET}]}))
    assert caught.value.what == "args.x[0].since: what was stored does not fit"
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None


# --- what travels


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (datetime, NAIVE.replace(microsecond=6)),
        (datetime, datetime(2030, 1, 2, tzinfo=UTC)),
        (datetime, datetime(2030, 10, 27, 2, 30, fold=1, tzinfo=BERLIN)),
        (datetime, datetime.max.replace(tzinfo=UTC)),
        (datetime, datetime.max.replace(tzinfo=timezone(timedelta(hours=-5)))),
        (date, date.min),
        (time, time(1, 2, 3)),
        (time, time(1, 2, 3, tzinfo=UTC)),
        (timedelta, timedelta.min),
        (UUID, UUID(int=5)),
        (Decimal, Decimal("-1.10E+30")),
        (Colour, Colour.BLUE),
        (Level, Level.HIGH),
        (Mood, Mood.GLAD),
        (bytes, b"\x00\xff"),
        (bytearray, bytearray(b"\x00")),
        (Address, Address("Elm", date(1984, 11, 9), ["a"])),
        (Parcel, Parcel(Decimal("1.5"), Address("Elm"))),
        (Point, Point(1.5)),
        (Renamed, Renamed("Ada")),
        (Node, Node(1, Node(2))),
        (Pair, Pair(1, NAIVE)),
        (Options, {"size": 3, "when": date(2030, 1, 1)}),
        (Customer, Customer(name="Ada", born=date(1815, 12, 10))),
        (list[Customer], [Customer(name="Ada")]),
        (Customer | None, None),
        (Strict, Strict(moment=datetime(2030, 1, 1, tzinfo=UTC))),
        (tuple[int, str], (1, "a")),
        (tuple[int, ...], (1, 2)),
        (set[date], {date(2030, 1, 1)}),
        (frozenset[tuple[int, int]], frozenset({(1, 2)})),
        (dict[int, list[UUID]], {5: [UUID(int=1)]}),
        (dict[UUID, int], {UUID(int=1): 1}),
        (dict[date, Address], {date(2030, 1, 1): Address("Elm")}),
        (Optional[int], None),  # noqa: UP045 - the old spelling is in many code bases
        (int | list[date] | None, [date(2030, 1, 1)]),
        (Literal["a", "b"], "b"),
        (UserId, 5),
        (Annotated[int, msgspec.Meta(ge=1)], 5),
        (Any, {"a": [1, None, True, 1.5, {"b": "c"}]}),
        (object, [1]),
        (M, [1]),
        (int, 2**70),
        (str, "\x00 \ud800 \U0001f600"),
        (Sequence[int], [1]),
        (Mapping[str, int], {"a": 1}),
        (Iterable[int], [1]),
        (Iterable[date], [date(2030, 1, 1)]),
        (list[Iterable[int]], [[1]]),
        (Iterable, [1]),
        (dict, {"a": 1}),
        (None, None),
    ],
)
def test_a_value_of_the_declared_type_comes_back_as_it_was(annotation, value):
    assert_same(there_and_back(annotation, value), value)


@pytest.mark.parametrize(
    ("annotation", "passed", "comes_back"),
    [
        (list[int], (1, 2), [1, 2]),
        (list, (1, 2), [1, 2]),
        (Sequence[Sequence[int]], ((1, 2),), [[1, 2]]),
        (float, 3, 3.0),
        (set[float], {1}, {1.0}),
        (int, Level.HIGH, 2),
        (str, Mood.GLAD, "glad"),
        (Level, 2, Level.HIGH),
        (datetime, "2030-01-01T00:00:00", NAIVE),
        (set[UUID], [str(UUID(int=1))], {UUID(int=1)}),
        (dict[int, int], {"5": 5}, {5: 5}),
        (Address, {"street": "Elm"}, Address("Elm")),
        (Renamed, {"firstName": "Ada"}, Renamed("Ada")),
        (Customer, {"name": "Ada"}, Customer(name="Ada")),
        (dict[str, int], OrderedDict(a=1), {"a": 1}),
        (datetime, type("Frozen", (datetime,), {})(2030, 1, 1), NAIVE),
        (str, type("SafeString", (str,), {})("a"), "a"),
        (int, type("Count", (int,), {})(3), 3),
        (float, type("float64", (float,), {})(1.5), 1.5),
    ],
)
def test_an_annotation_says_what_comes_out(annotation, passed, comes_back):
    assert_same(there_and_back(annotation, passed), comes_back)


def test_a_naive_datetime_comes_back_naive_and_an_aware_one_at_the_same_moment():
    assert there_and_back(datetime, NAIVE).tzinfo is None
    assert there_and_back(datetime, datetime(2030, 7, 1, tzinfo=BERLIN)) == datetime(2030, 7, 1, tzinfo=BERLIN)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)

OFFSETS = st.none() | st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))

LEAVES = [
    (bool, st.booleans()),
    (int, st.integers()),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (str, st.text(st.characters())),
    (bytes, st.binary()),
    (datetime, st.datetimes(timezones=OFFSETS)),
    (date, st.dates()),
    (time, st.times(timezones=OFFSETS)),
    (timedelta, st.timedeltas()),
    (UUID, st.uuids()),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (Colour, st.sampled_from(Colour)),
    (Level, st.sampled_from(Level)),
    (Literal["a", "b"], st.sampled_from(["a", "b"])),
    (UserId, st.integers()),
    (Address, st.builds(Address, st.text(), st.none() | st.dates(), st.lists(st.text()))),
    (Parcel, st.builds(Parcel, st.decimals(allow_nan=False, allow_infinity=False), st.builds(Address, st.text()))),
    (Point, st.builds(Point, st.floats(allow_nan=False, allow_infinity=False))),
    (Pair, st.builds(Pair, st.integers(), st.datetimes())),
    (Options, st.fixed_dictionaries({"size": st.integers()}, optional={"when": st.dates()})),
    (Customer, st.builds(Customer, name=st.text(st.characters(codec="utf-8")), born=st.none() | st.dates())),
    (Any, JSON_VALUES),
]

HASHABLE = [pair for pair in LEAVES if pair[0] in (int, str, date, UUID, Decimal, Colour, Level)]


def containers(inner):
    annotation, values = inner
    return st.sampled_from(
        [
            (list[annotation], st.lists(values, max_size=4)),
            (tuple[annotation, ...], st.lists(values, max_size=4).map(tuple)),
            (tuple[annotation, int], st.tuples(values, st.integers())),
            (dict[str, annotation], st.dictionaries(st.text(), values, max_size=4)),
        ]
        + ([(annotation | None, st.none() | values)] if isinstance(annotation, type) else [])
    )


def keyed(inner):
    annotation, values = inner
    return st.sampled_from(
        [
            (set[annotation], st.sets(values, max_size=4)),
            (frozenset[annotation], st.frozensets(values, max_size=4)),
            (dict[annotation, date], st.dictionaries(values, st.dates(), max_size=4)),
        ]
    )


TYPED = st.recursive(
    st.sampled_from(LEAVES) | st.sampled_from(HASHABLE).flatmap(keyed),
    lambda inner: inner.flatmap(containers),
    max_leaves=3,
)


@given(st.data())
def test_whatever_is_stored_comes_back_equal_and_of_the_same_types(data):
    annotation, values = data.draw(TYPED)
    value = data.draw(values)
    codec = taking(annotation)
    text = codec.encode((value,), {})
    assert text.isascii()
    assert_same(codec.decode(text)[0][0], value)


@given(JSON_VALUES)
def test_plain_json_needs_no_annotation(value):
    codec = Codec(untyped)
    assert_same(codec.decode(codec.encode((value,), {}))[0][0], value)


@given(st.text(st.characters(min_codepoint=0xD7F0, max_codepoint=0xE010), max_size=4))
def test_a_string_of_surrogates_comes_back_or_is_refused(text):
    codec = Codec(untyped)
    try:
        stored = codec.encode((text,), {})
    except UnstorableArguments:
        assert re.search("[\ud800-\udbff][\udc00-\udfff]", text)
    else:
        assert codec.decode(stored)[0][0] == text


# --- what is refused


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (User(), "args.x: User cannot be stored"),
        ([{"who": User()}], "args.x[0].who: User cannot be stored"),
        (NAIVE, "args.x: datetime cannot be stored"),
        ({"a": [date(2030, 1, 1)]}, "args.x.a[0]: date cannot be stored"),
        ({"a": [0, Decimal(1)]}, "args.x.a[1]: Decimal cannot be stored"),
        ((1,), "args.x: tuple cannot be stored"),
        ([[(1,)]], "args.x[0][0]: tuple cannot be stored"),
        ({1}, "args.x: set cannot be stored"),
        (b"a", "args.x: bytes cannot be stored"),
        (UUID(int=1), "args.x: UUID cannot be stored"),
        (Level.HIGH, "args.x: Level cannot be stored"),
        (OrderedDict(a=1), "args.x: OrderedDict cannot be stored"),
        (type("SafeString", (str,), {})("a"), "args.x: SafeString cannot be stored"),
        (Address("Elm"), "args.x: Address cannot be stored"),
        (Customer(name="Ada"), "args.x: Customer cannot be stored"),
        (Point(1), "args.x: Point cannot be stored"),
        ({5: 1}, "args.x{5}: key int cannot be stored"),
        ({1: 1, "1": 2}, "args.x{1}: int cannot be stored"),
        ({"a b": {1.5: 1}}, "args.x{str}{float}: key float cannot be stored"),
        ({True: 1}, "args.x{bool}: key bool cannot be stored"),
        ({(1, 2): 1}, "args.x{tuple}: key tuple cannot be stored"),
        (math.nan, "args.x: NaN cannot be stored"),
        ([0, {"price": math.inf}], "args.x[1].price: infinity cannot be stored"),
        (10**5000, "args.x: an int of this size cannot be stored"),
        ("\ud83d\ude00", "args.x: str cannot be stored"),
        (object(), "args.x: object cannot be stored"),
        (print, "args.x: builtin_function_or_method cannot be stored"),
        (1j, "args.x: complex cannot be stored"),
        (range(3), "args.x: range cannot be stored"),
        (Pair(1, NAIVE), "args.x: Pair cannot be stored"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith("args") else "",
)
def test_what_would_not_come_back_without_an_annotation_is_refused_by_its_path(value, what):
    error = refusal(Codec(untyped), value)
    assert type(error) is UnstorableArguments
    assert error.what == what


@pytest.mark.parametrize(
    ("annotation", "value", "what"),
    [
        (int, "3", "args.x: str cannot be stored"),
        (date, "\ud800", "args.x: str cannot be stored"),
        (list[int], ["\ud800"], "args.x: list cannot be stored"),
        (Node, Node(1, Node("2")), "args.x.next.value cannot be stored"),
        (int, True, "args.x: bool cannot be stored"),
        (int, 1.0, "args.x: float cannot be stored"),
        (int, None, "args.x: NoneType cannot be stored"),
        (str, UUID(int=1), "args.x: UUID cannot be stored"),
        (str, NAIVE, "args.x: datetime cannot be stored"),
        (bytes, type("Token", (bytes,), {})(b"a"), "args.x: Token cannot be stored"),
        (bytes, "abcd", "args.x: str cannot be stored"),
        (set[bytes], ["abcd"], "args.x{…}: str cannot be stored"),
        (float, 2**53 + 1, "args.x: int cannot be stored"),
        (float, math.nan, "args.x: NaN cannot be stored"),
        (Decimal, Decimal("sNaN"), "args.x: NaN cannot be stored"),
        (list[Decimal], [Decimal("Infinity")], "args.x[0]: infinity cannot be stored"),
        (dict[float, int], {math.nan: 1}, "args.x{float}: NaN cannot be stored"),
        (Point, Point(math.inf), "args.x.x: infinity cannot be stored"),
        (Customer, Customer(name="a", limit=math.inf), "args.x.limit: infinity cannot be stored"),
        (datetime, datetime(1800, 1, 1, tzinfo=BERLIN), "args.x: datetime cannot be stored"),
        (time, time(1, tzinfo=BERLIN), "args.x: time cannot be stored"),
        (set[int], [1, 1], "args.x: list cannot be stored"),
        (set[str], {"\ud83d\ude00"}, "args.x{…}: str cannot be stored"),
        (list[date], [date(2030, 1, 1), 3], "args.x[1] cannot be stored"),
        (dict[int, int], {5: "five"}, "args.x{…} cannot be stored"),
        (Address, Grand("Elm"), "args.x: Grand cannot be stored"),
        (Address, {"street": "Elm", "house": 3}, "args.x.house: int cannot be stored"),
        (Customer, {"name": "Ada", "copy": "x"}, "args.x.copy: str cannot be stored"),
        (Address, Address("Elm", date(2030, 1, 1), [5]), "args.x.tags[0] cannot be stored"),
        (Options, {"size": 1, "colour": 2}, "args.x.colour: int cannot be stored"),
        (dict[str, Any], {"a": NAIVE}, "args.x.a: datetime cannot be stored"),
        (dict[int, Any], {5: NAIVE}, "args.x{5}: datetime cannot be stored"),
        (dict[Any, int], {5: 1}, "args.x{5}: key int cannot be stored"),
        (list[Any], [(1,)], "args.x[0]: tuple cannot be stored"),
        (Literal["a"], "b", "args.x: str cannot be stored"),
        (Annotated[int, msgspec.Meta(ge=1)], 0, "args.x: int cannot be stored"),
        (Mixed, Mixed.WORD, "args.x: Mixed cannot be stored"),
        (User, User(), "args.x: User cannot be stored"),
        (User, 3, "args.x: int cannot be stored"),
        (Row, Row(id=3), "args.x: Row cannot be stored"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith("args") else "",
)
def test_what_the_annotation_does_not_cover_is_refused_by_its_path(annotation, value, what):
    error = refusal(taking(annotation), value)
    assert type(error) is UnstorableArguments
    assert error.what == what


def test_a_wrong_type_is_told_what_is_declared():
    assert refusal(Codec(greet), "1").why == "greet() declares int (Expected `int`, got `str`)"


@pytest.mark.parametrize(("value", "path"), [(User(), "x.id"), (Row(id=3), "x.id")])
def test_an_object_with_an_id_is_told_to_pass_that(value, path):
    assert refusal(Codec(untyped), value).mend == f"pass {path}"


def test_an_object_with_only_a_pk_is_told_to_pass_that():
    class Model:
        pk = property(lambda self: pytest.fail("the attribute was read"))

    assert refusal(Codec(untyped), [Model()]).mend == "pass x[0].pk"


def test_an_iterator_is_told_to_become_a_list():
    assert refusal(taking(Iterable[int]), iter([1])).mend == "pass list(x)"


def test_a_datetime_without_an_annotation_is_told_to_get_one():
    error = refusal(Codec(untyped), NAIVE)
    assert error.why == "datetime needs an annotation to come back as one, and not as str"


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def loop():
    value = []
    value.append(value)
    return value


def knot():
    value = {}
    value["self"] = [value]
    return value


@pytest.mark.parametrize("value", [nested(101), nested(2000), nested(200_000), loop(), knot()], ids=range(5))
@pytest.mark.parametrize("annotation", [Any, list, dict])
def test_what_is_too_deep_or_contains_itself_is_refused(annotation, value):
    error = refusal(taking(annotation), value)
    assert type(error) is UnstorableArguments
    assert error.what.endswith("nested too deep to be stored")


def test_a_hundred_levels_are_not_too_deep():
    assert there_and_back(Any, nested(100)) == nested(100)


@pytest.mark.parametrize("letter", ["a", "é"])
def test_more_than_a_mebibyte_of_json_is_too_large(letter):
    error = refusal(Codec(untyped), letter * MAX_BYTES)
    assert type(error) is ArgumentsTooLarge
    assert error.why == "the limit is 1,048,576 bytes"


def test_exactly_a_mebibyte_is_stored():
    frame = len('{"x": ""}')
    assert len(Codec(untyped).encode(("a" * (MAX_BYTES - frame),), {})) == MAX_BYTES
    assert type(refusal(Codec(untyped), "a" * (MAX_BYTES - frame + 1))) is ArgumentsTooLarge


def a_reluctant_class():
    def complain(self):
        raise ValueError(self.word)

    return msgspec.defstruct("Reluctant", [("word", str)], namespace={"__post_init__": complain})


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Any, User()),
        (Any, {SECRET: {SECRET: {1}}}),
        (Any, {"k" * 41: {1}}),
        (int, SECRET),
        (date, SECRET),
        (Colour, SECRET),
        (Literal["a"], SECRET),
        (Customer, {"name": "Ada", "born": SECRET}),
        (Customer, {"born": SECRET}),
        (a_reluctant_class(), {"word": SECRET}),
        (dict[int, int], {SECRET: 1}),
        (Address, {"street": "Elm", SECRET: 1}),
        (bytes, SECRET),
    ],
)
def test_no_error_contains_a_value(annotation, value):
    error = refusal(taking(annotation), value)
    assert SECRET not in str(error)
    assert "k" * 41 not in str(error)


def test_an_object_that_fails_while_it_is_written_is_refused_without_its_words():
    class Explosive(pydantic.BaseModel):
        @pydantic.model_serializer
        def explode(self):
            raise ValueError(SECRET)

    assert SECRET not in str(refusal(taking(Explosive), Explosive()))


def test_a_model_that_hides_a_secret_is_refused_rather_than_stored_without_it():
    class Login(pydantic.BaseModel):
        password: pydantic.SecretStr

    assert refusal(taking(Login), Login(password=SECRET)).what == "args.x: Login cannot be stored"


# --- annotations


def test_an_annotation_that_cannot_be_resolved_counts_as_none_and_is_mentioned():
    def perform(x: "Missing", when: "date"): ...  # noqa: F821 - that is the case

    codec = Codec(perform)
    assert codec.decode(codec.encode((3, date(2030, 1, 1)), {})) == ((3, date(2030, 1, 1)), {})
    error = refusal(codec, date(2030, 1, 1), date(2030, 1, 1))
    assert error.what == "args.x: date cannot be stored"
    assert error.why.endswith("(its annotation cannot be resolved: NameError: name 'Missing' is not defined)")


def test_an_annotation_that_json_cannot_tell_apart_counts_as_none_and_is_mentioned():
    codec = taking(list[int] | set[int])
    assert codec.decode(codec.encode(([1],), {})) == (([1],), {})
    assert "its annotation cannot be used" in refusal(codec, {1}).why


def test_annotations_are_not_touched_before_the_first_use():
    class Watched:
        def __getattribute__(self, name):
            pytest.fail(f"{name} was read")

    Codec(Watched())


def test_variadic_elements_are_checked_by_their_annotation():
    assert refusal(Codec(everything), 1, 2, "3").what == "args.ids[0] cannot be stored"
    assert refusal(Codec(everything), 1, size="3").what == "args.opts{…} cannot be stored"


def test_untyped_variadic_elements_are_plain_json():
    def perform(*items, **named): ...

    codec = Codec(perform)
    assert codec.decode(codec.encode((1, [2]), {"a": None})) == ((1, [2]), {"a": None})
    assert refusal(codec, 1, (2,)).what == "args.items[1]: tuple cannot be stored"
    assert refusal(codec, a={1}).what == "args.named.a: set cannot be stored"


# --- results


def returning(annotation):
    def perform(): ...

    perform.__annotations__["return"] = annotation
    return Codec(perform)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [(int, 3), (None, None), (bytes, b"\xff"), (dict[str, date], {"a": date(2030, 1, 1)}), (str, "\ud800")],
)
def test_a_result_comes_back_by_the_return_annotation(annotation, value):
    codec = returning(annotation)
    assert_same(codec.decode_result(codec.encode_result(value)), value)


def test_a_result_that_would_not_come_back_is_refused_by_its_path():
    with pytest.raises(UnstorableArguments) as caught:
        Codec(untyped).encode_result({"users": [User()]})
    assert caught.value.what == "result.users[0]: User cannot be stored"


def test_a_result_of_another_type_than_declared_does_not_fit():
    with pytest.raises(UnstorableArguments, match="result: what was stored does not fit"):
        returning(int).decode_result('"3"')


def test_a_result_of_more_than_a_mebibyte_is_too_large():
    with pytest.raises(ArgumentsTooLarge):
        returning(str).encode_result("a" * MAX_BYTES)


def test_the_codec_loads_no_pydantic():
    code = (
        "import sys; from sapwood.arguments import Codec\n"
        "codec = Codec(lambda x: 0); codec.decode(codec.encode(([1],), {}))\n"
        "sys.exit('pydantic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""Specifications of workers."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sapwood.spec import InvalidSpec, Share, parse


@pytest.mark.parametrize(
    ("text", "shares"),
    {
        "4": [Share(None, 4)],
        " 4 ": [Share(None, 4)],
        "default": [Share(("default",), 1)],
        "default:2,email:1": [Share(("default",), 2), Share(("email",), 1)],
        "default+email:2": [Share(("default", "email"), 2)],
        "all:1,slow:2": [Share(None, 1), Share(("slow",), 2)],
        "4:2": [Share(("4",), 2)],
        "default : 2 , email": [Share(("default",), 2), Share(("email",), 1)],
        "mail:out:2": [Share(("mail:out",), 2)],
        "a+a:1": [Share(("a",), 1)],
        "a+all:1": [Share(None, 1)],
    }.items(),
)
def test_a_specification_says_how_many_workers_serve_which_queues(text, shares):
    assert list(parse(text)) == shares


@pytest.mark.parametrize(
    ("text", "said", "column"),
    [
        ("default:2,email:x", '"x" is not a number', 17),
        ("default:", "a number is missing", 9),
        ("default:0", "0 workers are not possible", 9),
        ("0", "0 workers are not possible", 1),
        ("1001", "1001 workers are not possible", 1),
        ("99999999999999999999", "workers are not possible", 1),
        ("", "a queue is missing", 1),
        ("a:1,,b:1", "a queue is missing", 5),
        (":2", "a queue is missing", 1),
        ("a+:2", "a queue is missing", 3),
        ("a:1,a:2", '"a" is named twice', 5),
        ("a:-1", '"-1" is not a number', 3),
        ("a:٣", '"٣" is not a number', 3),
        ("a:1,b: 2.5", '"2.5" is not a number', 8),
    ],
)
def test_what_cannot_be_read_is_told_with_its_column(text, said, column):
    with pytest.raises(InvalidSpec) as raised:
        parse(text)
    assert said in raised.value.what
    assert f"(column {column})" in raised.value.what
    assert raised.value.why.splitlines()[1] == " " * (column - 1) + "^"
    assert raised.value.mend


def test_an_undeclared_queue_is_refused_with_the_one_that_was_meant():
    assert parse("email:2", declared=["default", "email"])
    assert parse("all:2", declared=["default", "email"])
    with pytest.raises(InvalidSpec, match=r'queue "emial" is not declared \(column 11\)') as raised:
        parse("default:1,emial:2", declared=["default", "email"])
    assert raised.value.mend == 'did you mean "email"?'


@given(st.text(max_size=30))
@example("½")
@example("a:²")
@example("²")
def test_no_word_brings_anything_but_workers_or_a_named_error(text):
    try:
        shares = parse(text)
    except InvalidSpec:
        return
    assert shares
    assert all(1 <= share.count <= 1000 for share in shares)


def test_what_workers_are_called_says_what_they_serve():
    assert [share.label for share in parse("all:1,a+b:2,c")] == ["all", "a+b", "c"]

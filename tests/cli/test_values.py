from datetime import UTC, datetime, timedelta, timezone

import click
import pytest

from sapwood.cli.problems import Misused
from sapwood.cli.values import flat, job_arguments, length, listed, moment, states


@pytest.mark.parametrize(
    ("text", "seconds"), [("300", 300), ("5m", 300), ("1h30m", 5400), ("1.5h", 5400), ("2d", 172800), ("0.2s", 0.2)]
)
def test_a_length_of_time_is_read(text, seconds):
    assert length(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5", "5 minutes", "m"])
def test_what_is_no_length_of_time_is_refused(text):
    with pytest.raises(click.BadParameter, match="5m"):
        length(text)


def test_a_moment_keeps_its_offset_and_gets_one_where_it_has_none():
    assert moment("2030-12-31T12:00Z") == datetime(2030, 12, 31, 12, tzinfo=UTC)
    cest = timezone(timedelta(hours=2))
    assert moment("2030-12-31T12:00+02:00") == datetime(2030, 12, 31, 12, tzinfo=cest)
    assert moment("2030-12-31T12:00").tzinfo is not None


def test_what_is_no_moment_is_refused():
    with pytest.raises(click.BadParameter, match="2030"):
        moment("tomorrow")


def test_lists_take_commas_and_stand_several_times():
    assert flat([listed("a, b"), listed("c")]) == ["a", "b", "c"]
    assert flat([]) is None


def test_an_unknown_state_is_refused_with_the_one_that_was_meant():
    with pytest.raises(click.BadParameter, match='"ready"'):
        states("redy")


def test_values_are_read_as_their_annotations_say():
    annotations = {"user_id": int, "ratio": float, "on": bool, "code": str, "ids": list[int]}
    words = ["user_id=42", "ratio=2", "on=yes", "code=0042", "ids=[1, 2]", "other=null", "text=a=b"]
    assert job_arguments(words, annotations) == (
        [],
        {"user_id": 42, "ratio": 2.0, "on": True, "code": "0042", "ids": [1, 2], "other": None, "text": "a=b"},
    )


def test_arguments_may_be_one_json_document():
    assert job_arguments(['{"a": 1}'], {}) == ([], {"a": 1})
    assert job_arguments(["[1, 2]"], {}) == ([1, 2], {})


@pytest.mark.parametrize("words", [["42"], ["=1"], ["a-b=1"], ["a=1", "a=2"], ["{a: 1}"], ['{"a": NaN}']])
def test_words_that_are_no_arguments_are_refused(words):
    with pytest.raises(Misused):
        job_arguments(words, {})


@pytest.mark.parametrize(("kind", "text"), [(int, "x"), (int, "1.5"), (float, "x"), (bool, "perhaps")])
def test_a_value_that_does_not_fit_its_annotation_is_refused(kind, text):
    with pytest.raises(Misused, match="value must be"):
        job_arguments([f"value={text}"], {"value": kind})

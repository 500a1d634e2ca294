import io
from datetime import UTC, datetime, timedelta

import pytest

from sapwood.cli.output import clean, fitting, number, shortened, span, until, wants_colour


def test_control_characters_are_written_out():
    assert clean("a\x1b[31mb\x07\r\n\tc\x9b\u202ed") == r"a\x1b[31mb\x07\r\n\tc\x9b\u202ed"


def test_a_lone_surrogate_is_written_out():
    assert clean("\ud800") == r"\ud800"


def test_line_ends_stay_where_they_are_wanted():
    assert clean("a\n\tb\x1b", lines=True) == "a\n\tb\\x1b"


def test_text_in_every_language_stays_as_it_is():
    assert clean("größe 日本 é") == "größe 日本 é"


def test_signs_fall_back_to_ascii_where_the_encoding_lacks_them():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    assert fitting("✓ 2 done – in 4m … ü", stream) == "+ 2 done - in 4m ... \\xfc"


def test_a_long_text_is_cut():
    assert shortened("x" * 100, 10) == "x" * 9 + "…"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0004, "0ms"), (0.142, "142ms"), (1.44, "1.4s"), (12.9, "12s"), (240, "4m"), (7500, "2h 5m"), (273600, "3d 4h")],
)
def test_a_span_is_said_in_the_unit_that_fits(seconds, text):
    assert span(seconds) == text


def test_a_moment_is_said_from_now():
    now = datetime(2030, 1, 1, tzinfo=UTC)
    assert until(now + timedelta(minutes=4), now) == "in 4m"
    assert until(now - timedelta(seconds=12), now) == "12s ago"
    assert until(now, now) == "now"


def test_numbers_have_their_nouns():
    assert [number(0, "job"), number(1, "job"), number(1204, "job")] == ["0 jobs", "1 job", "1,204 jobs"]


@pytest.mark.parametrize(
    ("choice", "environ", "wanted"),
    [
        ("auto", {}, None),
        ("auto", {"NO_COLOR": "1"}, False),
        ("auto", {"FORCE_COLOR": "1"}, True),
        ("auto", {"FORCE_COLOR": "0"}, None),
        ("auto", {"TERM": "dumb"}, False),
        ("auto", {"CI": "true"}, False),
        ("always", {"NO_COLOR": "1"}, True),
        ("never", {"FORCE_COLOR": "1"}, False),
    ],
)
def test_the_caller_decides_on_colour_before_the_environment(choice, environ, wanted):
    assert wants_colour(choice, environ) is wanted

"""The notes of a worker."""

import os
import struct
from pathlib import Path

import pytest

from sapwood.lifecycle import Trace
from sapwood.page import Page, condemn, first_deadline, pardon, read_page


@pytest.fixture
def fd(tmp_path: Path):
    fd = os.open(tmp_path / "page", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def test_what_is_noted_is_read_by_another_handle(fd, tmp_path):
    page = Page(fd, 4)
    page.start((1, 10))
    page.start((2, 20))
    page.start((2**40, 2**50))
    page.start((4, 40))
    page.suspect([(4, 40), (5, 50)])
    page.end((2, 20), well=True)
    page.end((2**40, 2**50), well=False)
    other = os.open(tmp_path / "page", os.O_RDONLY)
    assert read_page(other) == {
        (1, 10): Trace.STARTED,
        (2, 20): Trace.ENDED_WELL,
        (2**40, 2**50): Trace.ENDED_BADLY,
        (4, 40): Trace.SUSPECTED,
    }
    os.close(other)


def test_a_cleared_slot_serves_again(fd):
    page = Page(fd, 2)
    for number in range(100):
        page.start((number, 1))
        page.end((number, 1), well=True)
        page.clear([(number, 1), (number + 1000, 1)])
    assert read_page(fd) == {}
    page.start((7, 7))
    assert read_page(fd) == {(7, 7): Trace.STARTED}


def test_a_worker_killed_between_claim_and_kind_leaves_no_note(fd):
    page = Page(fd, 1)
    page.start((1, 10))
    kind = 32 + 16
    os.pwrite(fd, b"\0", kind)
    assert read_page(fd) == {}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"sapwood1",
        b"sapwood2",
        struct.pack("<8sQ", b"sapwood1", 5),
        struct.pack("<8sQQ", b"sapwood1", 5, 0),
        struct.pack("<8sQQd", b"sapwood2", 5, 0, 0),
        b"x" * 64,
    ],
)
def test_a_file_that_is_no_whole_page_says_nothing(fd, content):
    os.write(fd, content)
    assert read_page(fd) is None


def test_a_page_without_a_file_takes_notes_for_nobody():
    page = Page(-1, 1)
    page.start((1, 1))
    page.end((1, 1), well=True)
    page.clear([(1, 1)])
    page.close()


@pytest.mark.parametrize("by", ["the process itself", "whoever ends it"])
def test_what_a_process_ran_that_is_ended_on_purpose_counts_as_not_started(fd, by):
    page = Page(fd, 3)
    for number in (1, 2, 3):
        page.start((number, 10))
    page.end((2, 10), well=True)
    page.end((3, 10), well=False)
    if by == "the process itself":
        page.pardon()
    else:
        pardon(fd)
    assert read_page(fd) == {(2, 10): Trace.ENDED_WELL, (3, 10): Trace.ENDED_BADLY}


def test_a_page_that_is_not_there_yet_cannot_be_pardoned(fd):
    pardon(fd)
    assert os.fstat(fd).st_size == 0


@pytest.mark.parametrize("by", ["the process itself", "whoever ends it"])
def test_where_a_process_is_ended_for_what_is_overdue_that_has_timed_out_and_nothing_else(fd, by):
    page = Page(fd, 6)
    for number, deadline in ((1, 99.5), (2, 100.5), (3, 0), (4, 99.5), (5, 99.5)):
        page.start((number, 10), deadline=deadline)
    page.end((4, 10), well=True)
    page.clear([(5, 10)])
    page.start((6, 10))
    if by == "the process itself":
        page.condemn(at=100)
    else:
        condemn(fd, at=100)
    assert read_page(fd) == {(1, 10): Trace.TIMED_OUT, (4, 10): Trace.ENDED_WELL}


def test_the_overdue_whose_process_dies_of_something_else_has_not_timed_out(fd):
    page = Page(fd, 1)
    page.start((1, 10), deadline=1)
    assert read_page(fd) == {(1, 10): Trace.STARTED}


def test_what_is_no_longer_limited_has_no_deadline(fd):
    page = Page(fd, 2)
    page.start((1, 1), deadline=10)
    page.relieve((1, 1))
    assert first_deadline(fd) is None
    page.condemn(at=20)
    assert read_page(fd) == {}


def test_the_first_deadline_is_that_of_a_job_that_runs(fd):
    assert first_deadline(fd) is None
    page = Page(fd, 4)
    assert first_deadline(fd) is None
    for number, deadline in ((1, 0), (2, 20.0), (3, 10.0), (4, 30.0)):
        page.start((number, 1), deadline=deadline)
    assert first_deadline(fd) == 10
    page.end((3, 1), well=False)
    assert first_deadline(fd) == 20
    page.clear([(2, 1), (3, 1), (4, 1)])
    assert first_deadline(fd) is None


def _old_page(pardoned: int) -> bytes:
    slots = [((1, 10), 1), ((2, 20), 2), ((3, 30), 3), ((4, 40), 0)]
    body = b"".join(struct.pack("<QQB7x", *claim, kind) for claim, kind in slots)
    return struct.pack("<8sQQ", b"sapwood1", len(slots), pardoned) + body


def test_the_page_of_the_release_before_is_read_and_has_no_deadlines(fd):
    os.write(fd, _old_page(0))
    assert read_page(fd) == {(1, 10): Trace.STARTED, (2, 20): Trace.ENDED_WELL, (3, 30): Trace.ENDED_BADLY}
    assert first_deadline(fd) is None


def test_the_page_of_the_release_before_is_pardoned_but_never_condemned(fd):
    os.write(fd, _old_page(0))
    condemn(fd, at=100)
    assert os.pread(fd, 1000, 0) == _old_page(0)
    pardon(fd)
    assert read_page(fd) == {(2, 20): Trace.ENDED_WELL, (3, 30): Trace.ENDED_BADLY}

"""The notes of a worker."""

import os
import struct
from pathlib import Path

import pytest

from sapwood.lifecycle import Trace
from sapwood.page import Page, pardon, read_page


@pytest.fixture
def fd(tmp_path: Path):
    fd = os.open(tmp_path / "page", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def test_what_is_noted_is_read_by_another_handle(fd, tmp_path):
    page = Page(fd, 3)
    page.start((1, 10))
    page.start((2, 20))
    page.start((2**40, 2**50))
    page.end((2, 20), well=True)
    page.end((2**40, 2**50), well=False)
    other = os.open(tmp_path / "page", os.O_RDONLY)
    assert read_page(other) == {
        (1, 10): Trace.STARTED,
        (2, 20): Trace.ENDED_WELL,
        (2**40, 2**50): Trace.ENDED_BADLY,
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
    kind = 24 + 16
    os.pwrite(fd, b"\0", kind)
    assert read_page(fd) == {}


@pytest.mark.parametrize("content", [b"", b"sapwood1", struct.pack("<8sQ", b"sapwood1", 5), b"x" * 64])
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

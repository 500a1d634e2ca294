"""Several workers side by side, each in a fresh interpreter."""

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import msgspec

from sapwood.cli.output import number
from sapwood.cli.problems import Broken
from sapwood.worker import Tally


def side_by_side(commands: Sequence[Sequence[str]]) -> "Counter[str]":
    """Run ``sapwood`` with each of these arguments, all at once, and add up the tallies that they print.

    Raises:
        Broken: one of them did not end well. What it had to say is on stderr.
    """
    children = [
        # A group of its own each: a Ctrl-C reaches them once, from us, and not from the terminal as well.
        subprocess.Popen([sys.executable, "-m", "sapwood", *command], stdout=subprocess.PIPE, process_group=0)  # noqa: S603 - our own
        for command in commands
    ]
    with _signals_passed_on(children) as passed_on:
        answers = [child.communicate()[0] for child in children]
    # One that was told to stop before it could listen had not begun either.
    broken = [child for child in children if child.returncode and -child.returncode not in passed_on]
    if broken:
        raise Broken(f"{number(len(broken), 'worker')} of {len(children)} did not end well", why="they said it above")
    counted: Counter[str] = Counter()
    for answer in filter(None, answers):
        counted.update(msgspec.structs.asdict(msgspec.json.decode(answer, type=Tally)))
    return counted


@contextmanager
def _signals_passed_on(children: Sequence["subprocess.Popen[bytes]"]) -> Iterator[set[int]]:
    passed_on: set[int] = set()

    def pass_on(number: int, frame: FrameType | None) -> None:
        del frame
        passed_on.add(number)
        for child in children:
            child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield passed_on
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

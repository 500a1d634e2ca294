"""A worker whose jobs leave their effect in a database of their own. It, or its server, is killed while it works.

Arguments: the URL of the jobs, the file of the effects, the folder for the pages of workers whose store has no place.
"""

import os
import random
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sapwood import Job, Sapwood, Worker
from sapwood.adapters.base import Exchange
from sapwood.maintenance import Timing
from sapwood.page import Page

_local = threading.local()


def effects() -> sqlite3.Connection:
    """Return this thread's connection to the effects."""
    if not hasattr(_local, "connection"):
        _local.connection = sqlite3.connect(sys.argv[2], timeout=30, isolation_level=None)
    return _local.connection


class Effect(Job, name="crash.effect"):
    def perform(self, number: int) -> None:
        time.sleep(random.random() * 0.004)
        effects().execute("INSERT INTO effects VALUES (?, ?)", (number, self.context.attempt))


def noting_claims(exchange: Callable[..., Exchange]) -> Callable[..., Exchange]:
    """Note when a claim has brought jobs."""

    def noted(*arguments: Any, **options: Any) -> Exchange:
        answer = exchange(*arguments, **options)
        if answer.claimed:
            effects().execute("INSERT INTO claims VALUES (?)", (time.monotonic(),))
        return answer

    return noted


def page(worker: str, *, slots: int) -> Page:
    """Keep the notes where the killer finds them."""
    return Page(os.open(Path(sys.argv[3]) / worker, os.O_RDWR | os.O_CREAT), slots)


if __name__ == "__main__":
    app = Sapwood(sys.argv[1])
    adapter = app.adapter()
    adapter.exchange = noting_claims(adapter.exchange)
    if not sys.argv[1].startswith("sqlite"):
        adapter.page = page
    # The killer takes the jobs back itself, at once.
    Worker(app, concurrency=4, timing=Timing(look=3600, beat=3600, fence=7200)).run()

"""A worker whose jobs leave their effect in a database of their own. It is killed while it works.

Arguments: the URL of the jobs, the file of the effects.
"""

import random
import sqlite3
import sys
import threading
import time

from sapwood import Job, Sapwood, Worker
from sapwood.maintenance import Timing

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


if __name__ == "__main__":
    app = Sapwood(sys.argv[1])
    # The killer takes the jobs back itself, at once.
    Worker(app, concurrency=4, timing=Timing(look=3600, beat=3600, fence=7200)).run()

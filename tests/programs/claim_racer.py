"""A worker that only claims and settles, as fast as it can, until no job is ready. It says that it is there, and waits.

Arguments: the URL of the jobs, the file for the ids that it claims.
"""

import os
import sys
from pathlib import Path

from sapwood.adapters.base import Settlement
from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
from sapwood.lifecycle import Succeeded
from sapwood.record import WorkerRecord

BATCH = 20

if __name__ == "__main__":
    adapter = SQLAlchemyAdapter(sys.argv[1])
    me = f"racer-{os.getpid()}"
    adapter.register(WorkerRecord(id=me, host="here", pid=os.getpid(), queues=None, concurrency=BATCH, release="0"))
    print("there", flush=True)  # noqa: T201
    sys.stdin.readline()
    mine: list[int] = []
    done: list[Settlement] = []
    # Others may have locked all that were looked at: no claim does not yet mean that nothing is left.
    while done or adapter.ready_queues():
        answer = adapter.exchange(me, done, limit=BATCH)
        assert answer.alive
        assert answer.settled == {settlement.record.id for settlement in done}
        mine.extend(record.id for record in answer.claimed)
        done = [Settlement(record, Succeeded()) for record in answer.claimed]
    Path(sys.argv[2]).write_text("".join(f"{job}\n" for job in mine))
    adapter.unregister(me)
    adapter.close()

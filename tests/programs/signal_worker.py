"""A worker with one slot whose job says that it has started, and waits for a line; it says when the worker stops."""

import sys
import threading

from sapwood import Job, Sapwood, Worker
from sapwood.worker import Limits


class Gate(Job, name="signal.gate"):
    def perform(self) -> None:
        print("started", flush=True)  # noqa: T201
        threading.Thread(target=self.watch, daemon=True).start()
        sys.stdin.readline()

    def watch(self) -> None:
        pause = threading.Event()
        while not self.context.stopping:
            pause.wait(0.005)
        print("stopping", flush=True)  # noqa: T201


if __name__ == "__main__":
    limits = Limits(shutdown_timeout=float(sys.argv[2]) if len(sys.argv) > 2 else 25)
    Worker(Sapwood(sys.argv[1]), concurrency=1, limits=limits).run()

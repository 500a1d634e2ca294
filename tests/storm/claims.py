"""A job that notes with which claim it runs, and a build that runs it again for an outcome that was not written."""

RUN = """
class Run(Job, name="run"):
    # No claim may run twice.
    def perform(self, number: int, seconds: float = 0) -> None:
        note(number, self.context.lock_token, "begun")
        if seconds:
            time.sleep(seconds)
        note(number, self.context.lock_token, "done")
"""

RUNS_AGAIN = """
from sapwood.worker import Worker

_failed = Worker._store_failed

def _store_failed(self, error):
    # The wrong way: what could not be written is run once more.
    again = [settlement.record for settlement in self._unsettled]
    self._forget(self._unsettled)
    _failed(self, error)
    self._feed(again)

Worker._store_failed = _store_failed
"""

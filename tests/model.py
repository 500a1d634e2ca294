"""What a store should hold, worked out a second time: rows are dictionaries, and every rule is written out here.

Nothing of ``sapwood.lifecycle`` or of an adapter is used, so that no mistake of theirs can hide.
"""

from datetime import timedelta

from sapwood.lifecycle import Cancelled, Failed, Failure, Released, Retried, Snoozed, Succeeded, Trace, Unrecognised
from sapwood.record import JobState

WAITING = (JobState.SCHEDULED, JobState.READY)


class Model:
    """Jobs, their history, and the workers that are known."""

    def __init__(self):
        self.rows = {}
        self.history = {}
        self.workers = {}
        self.last_id = 0

    def enqueue(self, drafts, now):
        for draft in drafts:
            self.last_id += 1
            run_at = now + timedelta(seconds=draft.wait)
            self.rows[self.last_id] = {
                "id": self.last_id,
                "state": JobState.SCHEDULED if draft.wait > 0 else JobState.READY,
                "queue": draft.queue,
                "priority": draft.priority,
                "run_at": run_at,
                "job": draft.job,
                "args": draft.args,
                "attempts": 0,
                "max_attempts": draft.max_attempts,
                "lock_token": 0,
                "locked_by": None,
                "locked_at": None,
                "deaths": 0,
                "alone": False,
                "last_error": None,
                "unknown_since": None,
                "failed_at": None,
                "finished_at": None,
                "created_at": now,
                "result": None,
                "started_at": None,
            }
            self.history[self.last_id] = []

    def ready_queues(self, alone):
        return {row["queue"] for row in self.rows.values() if (row["state"], row["alone"]) == (JobState.READY, alone)}

    def claim(self, worker, queues, limit, alone, now):
        if worker not in self.workers:
            return []
        ready = [
            row
            for row in self.rows.values()
            if row["state"] == JobState.READY and row["alone"] == alone and (queues is None or row["queue"] in queues)
        ]
        taken = sorted(ready, key=_urgency)[:limit]
        for row in taken:
            row["state"] = JobState.RUNNING
            row["attempts"] += 1
            row["lock_token"] += 1
            row["locked_by"] = worker
            row["locked_at"] = now
        return [row["id"] for row in taken]

    def mark(self, worker, seen, now):
        row = self.rows.get(seen.id)
        if not self.holds(worker, seen) or row["started_at"] is not None:
            return False
        row["started_at"] = now
        return True

    def settle(self, worker, settlements, now):
        written = set()
        for seen, outcome in settlements:
            if self.holds(worker, seen):
                written.add(seen.id)
                self._end(self.rows[seen.id], outcome, now, seen.started_at)
        return written

    def holds(self, worker, claim):
        row = self.rows.get(claim.id)
        return row is not None and (JobState.RUNNING, claim.lock_token, worker) == (
            row["state"],
            row["lock_token"],
            row["locked_by"],
        )

    def _end(self, row, outcome, now, started_at):  # noqa: C901, PLR0912, PLR0915 - all that can end a run, side by side
        if started_at is not None and isinstance(outcome, Retried):
            outcome = Failed(outcome.failure)
        if started_at is not None and isinstance(outcome, Released):
            outcome = Failed(Failure("started once, outcome unknown"))
        row["started_at"] = None
        since = row["unknown_since"]
        tried = (row["attempts"], row["locked_by"], row["locked_at"])
        row["locked_by"] = row["locked_at"] = row["unknown_since"] = None
        if isinstance(outcome, Retried | Failed):
            self.history[row["id"]].append((*tried, now, outcome.failure.error))
        if isinstance(outcome, Retried | Failed | Unrecognised):
            row["last_error"] = outcome.failure.error
        if isinstance(outcome, Snoozed | Unrecognised | Released):
            row["attempts"] -= 1
        if isinstance(outcome, Retried | Snoozed | Unrecognised):
            row["state"] = JobState.SCHEDULED if outcome.wait > 0 else JobState.READY
            row["run_at"] = now + timedelta(seconds=outcome.wait)
        if isinstance(outcome, Succeeded | Failed | Cancelled):
            row["finished_at"] = now
        if isinstance(outcome, Unrecognised):
            row["unknown_since"] = since or now
        elif isinstance(outcome, Released):
            row["unknown_since"] = since
            row["state"] = JobState.READY
        elif isinstance(outcome, Failed):
            row["state"] = JobState.FAILED
            row["failed_at"] = now
        elif isinstance(outcome, Cancelled):
            row["state"] = JobState.CANCELLED
            row["last_error"] = outcome.reason
        elif isinstance(outcome, Succeeded):
            row["state"] = JobState.SUCCEEDED
            row["alone"] = False
            row["result"] = outcome.result
            if not outcome.keep:
                self._remove(row["id"])

    def release(self, worker, held, now):
        lost = [row for row in self.running(worker) if (row["id"], row["lock_token"]) not in held]
        for row in lost:
            self._end(row, Released(), now, row["started_at"])
        return {row["id"] for row in lost}

    def unregister(self, worker, now):
        return self.release(worker, [], now) if self.workers.pop(worker, None) is not None else set()

    def rescue(self, worker, beat, notes, now):
        if worker not in self.workers or beat not in {None, self.workers[worker]}:
            return None
        del self.workers[worker]
        return self._take_back(self.running(worker), notes, now)

    def sweep(self, now):
        running = [row for row in self.rows.values() if row["state"] == JobState.RUNNING]
        return self._take_back([row for row in running if row["locked_by"] not in self.workers], None, now)

    def _take_back(self, rows, notes, now):  # noqa: PLR0915 - all that a death leaves, side by side
        for row in rows:
            claim = (row["id"], row["lock_token"])
            trace = Trace.UNKNOWN if notes is None else notes.get(claim, Trace.NOT_STARTED)
            died = trace in {Trace.STARTED, Trace.UNKNOWN, Trace.SUSPECTED}
            if row["started_at"] is not None:
                why = "started once, outcome unknown"
                self.history[row["id"]].append((row["attempts"], row["locked_by"], row["locked_at"], now, why))
                row["state"] = JobState.FAILED
                row["locked_by"] = row["locked_at"] = None
                row["deaths"] += died
                row["failed_at"] = row["finished_at"] = now
                row["last_error"] = why
                continue
            spent = trace in {Trace.STARTED, Trace.ENDED_BADLY, Trace.TIMED_OUT}
            if died or spent:
                error = _blame(trace)
                self.history[row["id"]].append((row["attempts"], row["locked_by"], row["locked_at"], now, error))
            row["state"] = JobState.READY
            row["locked_by"] = row["locked_at"] = None
            if not spent:
                row["attempts"] -= 1
            if died:
                row["deaths"] += 1
                row["alone"] = True
                row["last_error"] = _blame(trace)
            if trace is Trace.TIMED_OUT:
                row["last_error"] = _blame(trace)
            if row["deaths"] >= 3 or (spent and row["attempts"] >= row["max_attempts"]):
                row["state"] = JobState.FAILED
                row["failed_at"] = row["finished_at"] = now
                row["last_error"] = row["last_error"] or "its last try failed, its outcome was lost with its worker"
            elif trace is Trace.TIMED_OUT:
                row["state"] = JobState.SCHEDULED
                row["run_at"] = now + timedelta(seconds=row["attempts"] ** 4)
        return {row["id"] for row in rows}

    def promote(self, limit, now):
        due = [row for row in self.rows.values() if row["state"] == JobState.SCHEDULED and row["run_at"] <= now]
        promoted = sorted(due, key=_urgency)[:limit]
        for row in promoted:
            row["state"] = JobState.READY
        return len(promoted)

    def unchanged(self, seen, *states):
        """Return the rows that still stand as they were seen, and stand in one of these states."""
        rows = [(record, self.rows.get(record.id)) for record in seen]
        return [
            row
            for record, row in rows
            if row is not None
            and (row["state"], row["lock_token"]) == (record.state, record.lock_token)
            and row["state"] in states
        ]

    def retry(self, seen, now):
        rows = self.unchanged(seen, JobState.FAILED, JobState.CANCELLED, JobState.SCHEDULED)
        for row in rows:
            row["state"] = JobState.READY
            row["run_at"] = now
            row["max_attempts"] = max(row["max_attempts"], row["attempts"] + 1)
            row["deaths"] = 0
            row["alone"] = False
            row["unknown_since"] = row["failed_at"] = row["finished_at"] = row["started_at"] = None
        return {row["id"] for row in rows}

    def cancel(self, seen, now):
        rows = self.unchanged(seen, *WAITING)
        for row in rows:
            row["state"] = JobState.CANCELLED
            row["finished_at"] = now
        return {row["id"] for row in rows}

    def edit(self, seen, edit, now):
        rows = self.unchanged(seen, *WAITING)
        for row in rows:
            row["queue"] = edit.queue or row["queue"]
            row["priority"] = edit.priority or row["priority"]
            if edit.run_at:
                row["run_at"] = edit.run_at
                row["state"] = JobState.SCHEDULED if edit.run_at > now else JobState.READY
        return {row["id"] for row in rows}

    def delete(self, seen):
        idle = [state for state in JobState if state is not JobState.RUNNING]
        rows = self.unchanged(seen, *idle)
        for row in rows:
            self._remove(row["id"])
        return {row["id"] for row in rows}

    def clear(self, queue, running):
        rows = [row for row in self.rows.values() if row["queue"] == queue]
        gone = [row["id"] for row in rows if running or row["state"] != JobState.RUNNING]
        for job_id in gone:
            self._remove(job_id)
        return len(gone)

    def running(self, worker):
        return [row for row in self.rows.values() if row["state"] == JobState.RUNNING and row["locked_by"] == worker]

    def counts(self):
        counts = {}
        for row in self.rows.values():
            key = (row["queue"], row["state"])
            counts[key] = counts.get(key, 0) + 1
        return counts

    def next_run_at(self):
        return min((row["run_at"] for row in self.rows.values() if row["state"] == JobState.SCHEDULED), default=None)

    def _remove(self, id):
        del self.rows[id]
        del self.history[id]


def _blame(trace):
    return {
        Trace.SUSPECTED: "damaged its worker: descriptors that it had not opened were closed or replaced",
        Trace.TIMED_OUT: "timeout: it could not be stopped in its time, and was ended with its worker",
        Trace.ENDED_BADLY: "failed, its outcome was lost with its worker",
    }.get(trace, "killed its worker")


def _urgency(row):
    return row["priority"], row["run_at"], row["id"]

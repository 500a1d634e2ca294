"""A worker process under a supervisor: ``python -m sapwood.cli.child DESCRIPTOR``. Nobody calls it by hand."""

import os
import signal
import socket
import sys

import setproctitle

from sapwood import link
from sapwood.cli.command import Invocation
from sapwood.cli.output import complain
from sapwood.cli.problems import ExitCode
from sapwood.cli.running import ShownWorker, run_worker
from sapwood.errors import ConfigurationError, SapwoodError
from sapwood.host import die_with_parent
from sapwood.link import Link, Welcome
from sapwood.supervised import FENCED, Linked, Reporter, Supervised
from sapwood.supervisor import UNUSABLE
from sapwood.wording import in_a_line
from sapwood.worker import Limits


def main(descriptor: int) -> int:
    """Be the worker that the other end of the link describes; return the exit code."""
    ours = Link(socket.socket(fileno=descriptor))
    os.set_inheritable(descriptor, False)
    welcome = _welcomed(ours)
    if welcome is None:
        return FENCED
    os.set_inheritable(welcome.page, False)
    die_with_parent(welcome.parent)
    setproctitle.setproctitle(f"sapwood worker {welcome.plan.name}")
    # Until the worker listens to signals itself, there is nothing that would have to be finished.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    call = Invocation()
    call.app, call.quiet, call.verbose = welcome.app, welcome.quiet, welcome.verbose
    try:
        _work(call, ours, welcome)
    except ConfigurationError as error:
        complain(error, color=call.color)
        ours.send(link.Unusable(in_a_line(error)))
        return UNUSABLE
    except SapwoodError as error:
        complain(error, color=call.color)
        ours.send(link.Unusable(str(error)))
        return ExitCode.STORE
    ours.send(link.Ended())
    return ExitCode.DONE


def _welcomed(ours: Link) -> Welcome | None:
    while True:
        messages = ours.receive()
        if messages is None:
            return None
        for message in messages:
            if isinstance(message, Welcome):
                return message


def _work(call: Invocation, ours: Link, welcome: Welcome) -> None:
    plan, app = welcome.plan, call.project.app
    adapter = app.adapter(plan.adapter)
    keeper = Supervised(ours, welcome, adapter) if welcome.tended else Linked(ours, welcome, adapter, app.events)
    worker = ShownWorker(
        app,
        adapter=plan.adapter,
        queues=plan.queues,
        concurrency=plan.concurrency,
        # Where the supervisor polls, and wakes whom it takes, this is but a second look.
        poll_interval=welcome.timing.look if welcome.tended else plan.poll_interval,
        limits=Limits(
            max_jobs=plan.max_jobs,
            max_memory=plan.max_memory,
            max_runtime=plan.max_runtime,
            shutdown_timeout=welcome.shutdown_timeout,
        ),
        keeper=keeper,
    )
    reporter = Reporter(ours, app.events)
    keeper.follow(stop=worker.stop, quiet=worker.quiet)
    run_worker(call, worker, plan.adapter, name=plan.name, until_empty=plan.apart)
    reporter.tell()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))

"""Names of queues and jobs: what not every store can hold is refused where it is said, by name and on every store."""

import pytest

from sapwood import Job, Sapwood, Worker, job
from sapwood.adapters.memory import MemoryAdapter
from sapwood.app import WorkerGroup
from sapwood.errors import ConfigurationError
from sapwood.lifecycle import Edit
from sapwood.record import JobDraft

BAD = {
    "nothing": ("", "has 0 characters"),
    "a NUL": ("n\0n", "NUL"),
    "half of a pair": ("n\ud800n", "half of a pair"),
    "too many letters": ("n" * 1_000, "has 1000 characters"),
    "no text": (7, "it is no text"),
}
bad = pytest.mark.parametrize(("name", "why"), BAD.values(), ids=BAD)


def refused(declare, noun, why):
    with pytest.raises(ConfigurationError) as told:
        declare()
    assert f"cannot name {noun}" in told.value.what
    assert why in told.value.why
    assert told.value.mend
    assert len(told.value.what) < 400
    str(told.value).encode()


@bad
def test_a_queue_is_refused_wherever_it_is_named(name, why):
    app = Sapwood(MemoryAdapter())

    class Named(Job, name="names.named", app=app):
        def perform(self) -> None: ...

    def declare():
        class Queued(Job, name="names.queued", queue=name):
            def perform(self) -> None: ...

    places = [
        declare,
        lambda: job(queue=name)(refused),
        lambda: Named.set(queue=name),
        lambda: JobDraft(job="names.named", args="{}", queue=name),
        lambda: Worker(app, queues=[name]),
        lambda: Edit(queue=name),
    ]
    if isinstance(name, str) and name:
        places += [
            lambda: Sapwood(MemoryAdapter(), queues=[name]),
            lambda: Sapwood(MemoryAdapter(), workers=[WorkerGroup(queues=[name])]),
        ]
    for place in places:
        refused(place, "a queue", why)


@bad
def test_a_job_is_refused_wherever_it_is_named(name, why):
    def declare(**options):
        class Named(Job, **options):
            def perform(self) -> None: ...

    refused(lambda: declare(name=name), "a job", why)
    refused(lambda: declare(name="names.aliased", aliases=["names.former", name]), "a job", why)
    refused(lambda: JobDraft(job=name, args="{}"), "a job", why)


def test_a_class_whose_own_name_is_too_long_is_told_when_it_is_declared():
    def declare():
        type("N" * 300, (Job,), {"__module__": "shop", "__qualname__": "N" * 300, "perform": lambda self: None})

    refused(declare, "a job", "has 305 characters")

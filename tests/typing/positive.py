"""Everything here must be accepted by every type checker. Nothing here is ever run."""

import datetime as dt
import logging
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Generic, NotRequired, ParamSpec, Self, TypedDict, TypeVar, Unpack, assert_type

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

from sapwood import (
    FunctionJob,
    Job,
    JobContext,
    JobHandle,
    JobState,
    MemoryAdapter,
    Sapwood,
    WorkerGroup,
    aenqueue_all,
    enqueue_all,
    job,
)

P = ParamSpec("P")
R = TypeVar("R")


class WelcomeEmail(Job):
    def perform(self, user_id: int) -> None: ...


class Resize(Job, queue="media", priority=10):
    max_attempts = 5

    def perform(self, photo_id: int, *, width: int = 100, crop: bool = False) -> str:
        return f"{photo_id}:{width}"


class Transfer(Job, transactional=True, delivery="at_least_once"):
    def perform(self, amount: int) -> None:
        assert_type(self.context.connection, Connection)
        assert_type(self.context.session, Session)


class Launch(Job):
    delivery = "at_most_once"

    def perform(self) -> None: ...


class Interest(Job, transactional=True):
    async def perform(self) -> None:
        assert_type(await self.context.aconnection(), AsyncConnection)
        assert_type(await self.context.asession(), AsyncSession)


@job(transactional=True, with_context=True)
def settle_up(context: JobContext, amount: int) -> None:
    assert_type(context.session, Session)


class Fetch(Job):
    queue = "net"

    async def perform(self, url: str, tries: int = 3) -> bytes:
        return b""


class ApplicationJob(Job):
    queue = "app"


class AbstractJob(Job):
    @abstractmethod
    def perform(self, *args: Any, **kwargs: Any) -> Any: ...


class Concrete(AbstractJob):
    def perform(self, n: int) -> int:
        return n


class Report(ApplicationJob):
    def perform(self, *ids: int, title: str) -> list[int]:
        return list(ids)


class Sub(Report):
    """inherits perform"""


class NoArgs(Job):
    def perform(self) -> None: ...


class Options(TypedDict):
    width: int
    height: NotRequired[int]


class WithTypedDict(Job):
    def perform(self, name: str, **opts: Unpack[Options]) -> None: ...


class PosOnly(Job):
    def perform(self, a: int, /, b: str) -> None: ...


class SelfReturning(Job):
    def perform(self: Self, n: int) -> int:
        return n


def logged(fn: Callable[P, R]) -> Callable[P, R]:
    return fn


class Decorated(Job):
    @logged
    def perform(self, n: int) -> int:
        return n


class Static(Job):
    @staticmethod
    def perform(n: int) -> int:
        return n


def sync_code(when: dt.datetime) -> None:
    assert_type(WelcomeEmail.perform_later(1), JobHandle[None])
    assert_type(WelcomeEmail.perform_later(user_id=1), JobHandle[None])
    assert_type(WelcomeEmail.set(wait=60).perform_later(1), JobHandle[None])
    assert_type(WelcomeEmail.set(wait_until=when, queue="m", priority=5).perform_later(user_id=1), JobHandle[None])
    assert_type(Resize.perform_later(1, width=5).result(), str)
    assert_type(Fetch.perform_later("http://x").result(), bytes)
    assert_type(Fetch.set(wait=1).perform_later("http://x", tries=2).result(), bytes)
    assert_type(Report.perform_later(1, 2, 3, title="x").result(), list[int])
    assert_type(Sub.set(wait=1).perform_later(1, title="x").result(), list[int])
    assert_type(NoArgs.perform_later(), JobHandle[None])
    assert_type(Resize.perform_now(1), str)
    assert_type(Concrete.perform_later(1).result(), int)
    WithTypedDict.perform_later("n", width=1)
    WithTypedDict.set(wait=1).perform_later("n", width=1, height=2)
    PosOnly.perform_later(1, b="x")
    assert_type(SelfReturning.perform_later(1).result(), int)
    assert_type(Decorated.perform_later(1).result(), int)
    assert_type(Static.perform_later(1).result(), int)
    enqueue_all([WelcomeEmail.build(1), Resize.set(wait=5).build(2, width=3), send.build("x")])
    enqueue_all(WelcomeEmail.build(i) for i in range(3))


async def async_code() -> None:
    assert_type(await WelcomeEmail.aperform_later(1), JobHandle[None])
    assert_type((await Fetch.aperform_later("u")).result(), bytes)
    assert_type((await Fetch.set(queue="x").aperform_later("u")).result(), bytes)
    assert_type(await Fetch.perform_now("u"), bytes)
    assert_type(await Fetch.set(queue="x").perform_now("u"), bytes)


@job(queue="mail")
def send(to: str, subject: str = "hi") -> int:
    return 1


@job
def bare(x: int) -> str:
    return str(x)


@job(queue="net", priority=3)
async def crawl(url: str) -> list[str]:
    return [url]


@job(with_context=True)
def with_ctx(ctx: JobContext, n: int) -> int:
    return n + ctx.attempt


@job(with_context=True, queue="q")
async def awith_ctx(ctx: JobContext, n: int) -> int:
    return n


async def functions() -> None:
    assert_type(send.perform_later("a"), JobHandle[int])
    assert_type(send.set(wait=5).perform_later("a", subject="s").result(), int)
    assert_type(send("a"), int)
    assert_type(bare.perform_later(1), JobHandle[str])
    assert_type(crawl.perform_later("u").result(), list[str])
    assert_type(await crawl("u"), list[str])
    assert_type((await crawl.set(wait=1).aperform_later("u")).result(), list[str])
    assert_type(with_ctx.perform_later(1).result(), int)
    assert_type(awith_ctx.perform_later(1).result(), int)


M = TypeVar("M")


class Base(Job, Generic[M]):
    def perform(self, item: M) -> M:
        return item


class IntJob(Base[int]): ...


def generic_jobs() -> None:
    assert_type(IntJob.perform_later(1).result(), int)


def dynamic(many: list[type[WelcomeEmail]]) -> None:
    for w in many:
        w.perform_later(1)


def helper(j: FunctionJob[[int], R]) -> JobHandle[R]:
    return j.perform_later(1)


assert_type(helper(bare), JobHandle[str])


class Kept(Job, keep=True, adapter="audit", name="kept", aliases=["once.kept"], logger=logging.getLogger("kept")):
    def perform(self, n: int) -> list[int]:
        self.logger.info("%d of %s", n, self.context.job_id)
        return [n]

    def backoff(self, attempt: int) -> float:
        return 2.0**attempt


class OfAnother(Kept, app=Sapwood("sqlite:///another.db"), max_attempts=3):
    """belongs to one app and to no other"""


class Attributed(Job):
    queue = "media"
    keep = True
    name = "attributed"
    aliases = ["once.attributed"]  # noqa: RUF012 - a list is what people write
    app = Sapwood("sqlite:///another.db")
    logger = logging.getLogger("attributed")

    def perform(self, n: int) -> list[int]:
        self.logger.info("%d of %s", n, self.context.job_id)
        return [n]


@job(keep=True, adapter="audit", name="total", aliases=("sum",), max_attempts=2)
def total(numbers: list[int]) -> int:
    return sum(numbers)


def connections(session: Session, connection: Connection) -> None:
    assert_type(Kept.set(connection=session).perform_later(1), JobHandle[list[int]])
    assert_type(Kept.set(connection=connection, wait=dt.timedelta(hours=1)).perform_later(1), JobHandle[list[int]])
    assert_type(total.set(connection=session, priority=1).perform_later([1]).result(timeout=3), int)
    assert_type(enqueue_all([OfAnother.build(1)]), list[JobHandle[Any]])
    assert_type(Kept.perform_later(1).state, JobState | None)
    assert_type(Attributed.set(wait=1).perform_later(1).result(), list[int])


async def async_connections(session: AsyncSession) -> None:
    assert_type(await Kept.set(connection=session).aperform_later(1), JobHandle[list[int]])
    assert_type(await total.set(connection=session).aperform_later([1]), JobHandle[int])
    assert_type(await (await Fetch.aperform_later("u")).aresult(), bytes)
    assert_type(await aenqueue_all([Fetch.build("u"), total.build([])]), list[JobHandle[Any]])


@contextmanager
def timed(context: JobContext) -> Iterator[None]:
    yield


@asynccontextmanager
async def atimed(context: JobContext) -> AsyncIterator[None]:
    yield


Sapwood(
    adapters={"default": MemoryAdapter(), "audit": "sqlite:///audit.db"},
    queues=["default", "media"],
    workers=[WorkerGroup(queues=["media"], count=2, concurrency=1), WorkerGroup(adapter="audit")],
    imports=["shop.jobs"],
    logger=logging.getLogger("jobs"),
    middleware=[timed, atimed],
)

"""Every line with an E mark at its end must be rejected by every type checker, and no other. Nothing is ever run."""

import datetime as dt
from typing import NotRequired, TypedDict, Unpack

from sapwood import Job, JobContext, MemoryAdapter, Sapwood, WorkerGroup, aenqueue_all, enqueue_all, job


class WelcomeEmail(Job):
    def perform(self, user_id: int) -> None: ...


class Resize(Job, queue="media"):
    def perform(self, photo_id: int, *, width: int = 100) -> str:
        return ""


class Fetch(Job):
    async def perform(self, url: str) -> bytes:
        return b""


class BadKw(Job, qeue="x"): ...  # E


class BadKwType(Job, queue=3): ...  # E


class BadAttr(Job):
    queue = 3  # E


class BadNameAttr(Job):
    name = 3  # E


class BadAliasesAttr(Job):
    aliases = 7  # E


class BadAppAttr(Job):
    app = "sqlite:///jobs.db"  # E


class Options(TypedDict):
    width: int
    height: NotRequired[int]


class WithTypedDict(Job):
    def perform(self, name: str, **opts: Unpack[Options]) -> None: ...


class Overridden(Resize):
    async def perform(self, photo_id: int, *, width: int = 100) -> str:  # E
        return ""


when = dt.datetime.now(dt.UTC)
WelcomeEmail.perform_later("1")  # E
WelcomeEmail.perform_later()  # E
WelcomeEmail.perform_later(1, 2)  # E
WelcomeEmail.perform_later(uid=1)  # E
WelcomeEmail.perform_later(1, wait=60)  # E
WelcomeEmail.set(wait=60).perform_later("1")  # E
WelcomeEmail.set(wait=60).perform_later()  # E
WelcomeEmail.set(wait=60).perform_later(1, 2)  # E
WelcomeEmail.set(wait="soon")  # E
WelcomeEmail.set(wiat=60)  # E
WelcomeEmail.set(queue=3)  # E
WelcomeEmail.set(wait=1, wait_until=when)  # E
WelcomeEmail.set(wait_until=when).perform_later("x")  # E
Resize.perform_later(1, 5)  # E
Resize.perform_later(1, width="w")  # E
Resize.set(wait=1).perform_later(1, 5)  # E
Fetch.perform_later(1)  # E
Fetch.perform_later()  # E
Fetch.set(wait=1).perform_later(1)  # E
n: int = Resize.perform_later(1).result()  # E
s: str = Fetch.perform_later("u").result()  # E
Resize.perform_now("x")  # E
WelcomeEmail.build("x")  # E
enqueue_all([WelcomeEmail.build(1), Resize.build("x")])  # E
enqueue_all([1])  # E
WithTypedDict.perform_later("n")  # E
WithTypedDict.perform_later("n", width="1")  # E


@job(queue="mail")
def send(to: str) -> int:
    return 1


@job(queue="net")
async def crawl(url: str) -> list[str]:
    return []


@job(with_context=True)
def with_ctx(ctx: JobContext, n: int) -> int:
    return n


send.perform_later(1)  # E
send.perform_later()  # E
send.perform_later("a", wait=1)  # E
send.set(wait=1).perform_later(1)  # E
send.set(wait="x")  # E
send.set(wait=1, wait_until=when)  # E
send.build(2)  # E
crawl.perform_later(1)  # E
crawl.set(wait=1).perform_later()  # E
with_ctx.perform_later("x")  # E
with_ctx.perform_later(JobContext(), 1)  # E


@job(queue=5)  # E
def q(x: int) -> None: ...


@job(with_context=True)  # E
def noctx(n: int) -> int:
    return n


async def go() -> None:
    await WelcomeEmail.aperform_later("1")  # E
    await Fetch.aperform_later(1)  # E
    await Fetch.set(wait=1).aperform_later(1)  # E


class Forgot(Job): ...


Forgot.perform_later(1, 2, 3)  # E
Forgot.set(wait=1)  # E


def dynamic(c: type[Job]) -> None:
    c.perform_later(1)  # E


class BadKeep(Job, keep="yes"): ...  # E


class BadTransactional(Job, transactional="yes"): ...  # E


class BadDelivery(Job, delivery="exactly_once"): ...  # E


class BadAliases(Job, aliases=7): ...  # E


class BadApp(Job, app="sqlite:///jobs.db"): ...  # E


class BadAdapter(Job, adapter=MemoryAdapter()): ...  # E


class BadBackoff(Job):
    def backoff(self, attempt: str) -> float:  # E
        return 1.0


WelcomeEmail.set(conection=None)  # E
send.set(wait_until="tomorrow")  # E
WelcomeEmail.perform_later(1).result(timeout="1")  # E
Sapwood("sqlite:///jobs.db", queue=["email"])  # E
WorkerGroup(count="two")  # E


@job(keep=1)  # E
def kept(x: int) -> None: ...


async def bulk() -> None:
    await aenqueue_all([WelcomeEmail.perform_later(1)])  # E

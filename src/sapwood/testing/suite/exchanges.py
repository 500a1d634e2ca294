# ruff: noqa: D103 - the name of a case is its sentence, and its numbers are the example
"""Settling and claiming in one breath."""

from sapwood.adapters.base import Settlement
from sapwood.lifecycle import Outcome, Released, Retried, Snoozed, Succeeded
from sapwood.testing.suite.bench import BOOM, ENDED, NOW, Bench, ids, same
from sapwood.testing.suite.case import Chapter

chapter = Chapter("exchanges")


@chapter.case
def an_exchange_settles_and_claims(bench: Bench) -> None:
    done, waiting = bench.running(1)[0], bench.ready(2)
    answer = bench.adapter.exchange("w1", [Settlement(done, Succeeded())], limit=1, now=NOW)
    same((answer.settled, ids(answer.claimed), answer.alive), ({done.id}, [waiting[0].id], True), "the answer")
    same((bench.adapter.get(done.id), answer.claimed[0].locked_at), (None, NOW), "the old row, the new claim")


@chapter.case
def an_exchange_answers_for_the_settled_when_there_is_nothing_to_claim(bench: Bench) -> None:
    done = bench.running(2)
    answer = bench.adapter.exchange("w1", [Settlement(one, Succeeded()) for one in done], limit=9, now=NOW)
    same((answer.settled, list(answer.claimed), answer.alive), (frozenset(ids(done)), [], True), "the answer")


@chapter.case
def an_exchange_with_no_free_slot_only_settles(bench: Bench) -> None:
    (done,) = bench.running()
    waiting = bench.ready(2)
    answer = bench.adapter.exchange("w1", [Settlement(done, Succeeded())], limit=0, now=NOW)
    same((answer.settled, list(answer.claimed), answer.alive), ({done.id}, [], True), "the answer")
    same(bench.everything(), waiting, "the jobs")


@chapter.case
def an_exchange_with_nothing_to_settle_only_claims(bench: Bench) -> None:
    stored = bench.ready(2)
    bench.register("w1")
    answer = bench.adapter.exchange("w1", [], limit=9, now=NOW)
    same((answer.settled, ids(answer.claimed), answer.alive), (frozenset(), ids(stored), True), "the answer")


@chapter.case
def an_exchange_reports_the_refused_and_claims_all_the_same(bench: Bench) -> None:
    stolen, done = bench.running(2)
    bench.adapter.release("w1", held=[(done.id, done.lock_token)], now=ENDED)
    batch = [Settlement(stolen, Succeeded()), Settlement(done, Succeeded())]
    answer = bench.adapter.exchange("w1", batch, limit=9, now=NOW)
    same((answer.settled, ids(answer.claimed)), ({done.id}, [stolen.id]), "the answer")
    same(answer.claimed[0].lock_token, 2, "the token of the new claim")


@chapter.case
def an_exchange_of_a_rescued_worker_does_nothing(bench: Bench) -> None:
    (record,) = bench.running()
    bench.adapter.rescue("w1", now=ENDED)
    before = bench.everything()
    answer = bench.adapter.exchange("w1", [Settlement(record, Succeeded())], limit=9, now=NOW)
    same((answer.settled, list(answer.claimed), answer.alive), (frozenset(), [], False), "the answer")
    same(bench.everything(), before, "the jobs")


@chapter.table({"released": (Released(), 1), "retried at once": (Retried(0, BOOM), 2), "snoozed": (Snoozed(0), 1)})
def what_an_exchange_makes_ready_it_may_claim(bench: Bench, outcome: Outcome, attempts: int) -> None:
    (record,) = bench.running()
    answer = bench.adapter.exchange("w1", [Settlement(record, outcome)], limit=9, now=NOW)
    same((answer.settled, ids(answer.claimed)), ({record.id}, [record.id]), "the answer")
    same((answer.claimed[0].lock_token, answer.claimed[0].attempts), (2, attempts), "token and attempts")


@chapter.case
def an_exchange_claims_only_of_its_queues(bench: Bench) -> None:
    (done,) = bench.running(queue="there")
    (here,) = bench.ready()
    bench.ready(queue="there")
    answer = bench.adapter.exchange("w1", [Settlement(done, Succeeded())], queues=["here"], limit=9, now=NOW)
    same((answer.settled, ids(answer.claimed)), ({done.id}, [here.id]), "the answer")

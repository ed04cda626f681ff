"""A site that lies beside two honest ones: its answer is refused with a sentence, no other's is."""

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedtwin_protocol.content import make_content
from fedtwin_protocol.payload import Payload
from fedtwin_protocol.v1 import exchange_pb2 as pb

Answer = Callable[[Any, Any, pb.Task], pb.Answer]
GOOD = np.array([0.1, -0.2, 0.3])


def content(arrays: dict[str, Any], weight: Any = 40.0, **more: Any) -> pb.Content:
    metrics = {} if weight is None else {"num-examples": weight}
    payload = Payload(arrays={"arrays": arrays}, metrics={"metrics": {**metrics, **more}})
    return make_content(payload, None)


def claiming(shape: tuple[int, ...], sent: bytes = GOOD.tobytes()) -> pb.Content:
    made = content({"gradient_sum": GOOD})
    made.records[0].arrays[0].shape[:] = shape
    made.inline = sent
    return made


def with_record(record: pb.Record) -> pb.Content:
    made = content({"gradient_sum": GOOD})
    made.records.append(record)
    return made


def twice_named() -> pb.Content:
    made = content({"gradient_sum": GOOD})
    made.records[1].fields.add(name="num-examples").value.number = 40.0
    return made


BAD_UPDATES = {
    "NaN": (content({"gradient_sum": np.array([0.1, np.nan, 0.3])}), "not finite"),
    "infinite": (content({"gradient_sum": np.array([0.1, np.inf, 0.3])}), "not finite"),
    "overflowing": (content({"gradient_sum": np.full(3, 1e200)}), "not finite"),
    "huge": (content({"gradient_sum": np.full(3, 1e4)}), "norm is 1.73e+04"),
    "short": (content({"gradient_sum": GOOD[:2]}), "expected the arrays"),
    "folded": (content({"gradient_sum": GOOD.reshape(3, 1)}), "expected the arrays"),
    "float32": (content({"gradient_sum": GOOD.astype("float32")}), "expected the arrays"),
    "int64": (content({"gradient_sum": GOOD.astype("int64")}), "expected the arrays"),
    "other name": (content({"gradient": GOOD}), "expected the arrays"),
    "one more": (content({"gradient_sum": GOOD, "and": GOOD}), "expected the arrays"),
    "none": (content({}), "expected the arrays"),
    "weight 1e12": (content({"gradient_sum": GOOD}, 1e12), "claims 1e+12 patients"),
    "weight -1": (content({"gradient_sum": GOOD}, -1.0), "claims -1 patients"),
    "weight 0": (content({"gradient_sum": GOOD}, 0.0), "claims 0 patients"),
    "weight NaN": (content({"gradient_sum": GOOD}, float("nan")), "finite number 'num-examples'"),
    "weight inf": (content({"gradient_sum": GOOD}, float("inf")), "finite number 'num-examples'"),
    "weight true": (content({"gradient_sum": GOOD}, True), "finite number 'num-examples'"),
    "weight text": (content({"gradient_sum": GOOD}, "40"), "finite number 'num-examples'"),
    "weight list": (content({"gradient_sum": GOOD}, [40.0]), "finite number 'num-examples'"),
    "no weight": (content({"gradient_sum": GOOD}, None), "finite number 'num-examples'"),
    "8 TiB": (claiming((2**40,)), "arrays claim 8796093022208 bytes, but 24 were sent"),
    "2^192 bytes": (claiming((2**63, 2**63, 2**63)), "arrays claim"),
    "wrapping": (claiming((2**61 + 3,)), "arrays claim"),
    "nothing of much": (claiming((0, 2**63), b""), "expected the arrays"),
    "17 axes": (claiming((3,) + (1,) * 16), "too large to be a model's"),
    "second arrays": (
        with_record(pb.Record(name="more", kind=pb.Record.ARRAYS)),
        "expected the records",
    ),
    "second metrics": (
        with_record(pb.Record(name="more", kind=pb.Record.METRICS)),
        "expected the records",
    ),
    "config": (
        with_record(pb.Record(name="config", kind=pb.Record.CONFIG)),
        "expected the records",
    ),
    "weight twice": (twice_named(), "given twice"),
    "empty": (pb.Content(), "expected the records"),
}


def lying(ground: Any, refusals: list[str], lie: Any, when: str = "train") -> Any:
    """A site that is honest but for one kind of task; what it is told goes to `refusals`."""

    async def answer(site: Any, task: pb.Task) -> None:
        if task.kind != when:
            await ground.honest("mallory")(site, task)
            return
        received = await lie(site, task)
        assert not received.accepted, f"accepted in round {task.round}"
        refusals.append(received.reason)

    return answer


def attack(ground: Any, plan: Any, lie: Any, when: str = "train") -> tuple[list[str], list[str]]:
    """Carry a study out with two honest sites and a liar; returns what it is told, and the journal.

    The study must end well, and with the model of the honest sites alone.
    """
    refusals: list[str] = []

    async def scenario() -> list[str]:
        async with ground.coordinator() as store:
            players = {name: ground.honest(name) for name in ("aal", "bergen")}
            players["mallory"] = lying(ground, refusals, lie, when)
            await ground.carry_out(plan, players, store)
            assert ground.state(plan, store) == "finished: "
            sites = {closed.sites for closed in store.rounds(plan.study)}
            if when != "evaluate":
                assert sites == {("aal", "bergen")}
                np.testing.assert_allclose(
                    ground.model(plan, store), ground.model_of(plan, "aal", "bergen"), rtol=1e-12
                )
            return [event.text for event in store.journal(plan.study) if event.site == "mallory"]

    journal = asyncio.run(scenario())
    return refusals, journal


@pytest.mark.parametrize("name", BAD_UPDATES)
def test_a_bad_update_is_that_sites_failure(ground: Any, name: str) -> None:
    """In every round; the reason is told to the site and written into the study's journal."""
    made, expected = BAD_UPDATES[name]
    number = list(BAD_UPDATES).index(name)

    async def lie(site: Any, task: pb.Task) -> pb.Received:
        return await site.answer(task, made)

    refusals, journal = attack(ground, ground.plan(f"bad-update-{number}"), lie)
    assert len(refusals) >= 2, "the last may be overtaken by the study's end"
    assert all(expected in refusal for refusal in refusals), refusals
    assert len(journal) == 3
    assert all(expected in line for line in journal), journal


BELONGING = {
    "another study": ({"study": "another"}, "another study, plan or round"),
    "another plan": ({"plan_hash": b"\x00" * 32}, "another study, plan or round"),
    "another round": ({"round": 9}, "another study, plan or round"),
    "no outcome": ({}, "the site cannot: no reason given"),
}


@pytest.mark.parametrize("name", BELONGING)
def test_an_update_that_belongs_elsewhere(ground: Any, name: str) -> None:
    changes, expected = BELONGING[name]
    number = list(BELONGING).index(name)

    async def lie(site: Any, task: pb.Task) -> pb.Received:
        made = None if name == "no outcome" else content({"gradient_sum": GOOD})
        return await site.answer(task, made, **changes)

    refusals, journal = attack(ground, ground.plan(f"elsewhere-{number}"), lie)
    assert len(refusals) >= 2, "the last may be overtaken by the study's end"
    assert all(expected in text for text in (*refusals, *journal)), (refusals, journal)
    assert len(journal) == 3


def test_a_task_that_was_not_given(ground: Any) -> None:
    """Another site's task, or an invented one: refused and noted; the own one is still open."""
    plan = ground.plan("not-given", sites__deadline_s=3)
    others: list[str] = []

    async def lie(site: Any, task: pb.Task) -> pb.Received:
        made = content({"gradient_sum": GOOD})
        for invented in ("f" * 32, "", others[-1] if others else "0" * 32):
            received = await site.answer(task, made, task_id=invented)
            assert not received.accepted
        return received

    async def eavesdropped(site: Any, task: pb.Task) -> None:
        others.append(task.task_id)
        await ground.honest("aal")(site, task)

    refusals: list[str] = []

    async def scenario() -> list[str]:
        async with ground.coordinator() as store:
            players = {
                "aal": eavesdropped,
                "bergen": ground.honest("bergen"),
                "mallory": lying(ground, refusals, lie),
            }
            await ground.carry_out(plan, players, store)
            assert ground.state(plan, store) == "finished: "
            np.testing.assert_allclose(
                ground.model(plan, store), ground.model_of(plan, "aal", "bergen"), rtol=1e-12
            )
            return [event.text for event in store.journal(plan.study) if event.site == "mallory"]

    journal = asyncio.run(scenario())
    assert refusals
    assert all("nobody waits for this answer" in refusal for refusal in refusals)
    assert any("nobody waits for this answer" in line for line in journal)


COUNTS = {
    "NaN": (float("nan"), "finite number 'cohort-count'"),
    "inf": (float("inf"), "finite number 'cohort-count'"),
    "negative": (-5.0, "cannot be one"),
    "zero": (0.0, "cannot be one"),
    "1e300": (1e300, "cannot be one"),
    "text": ("many", "finite number 'cohort-count'"),
    "list": ([40.0], "finite number 'cohort-count'"),
}


@pytest.mark.parametrize("name", COUNTS)
def test_a_bad_cohort_count(ground: Any, name: str) -> None:
    """The site is asked once, refused once, and takes part in no round."""
    count, expected = COUNTS[name]

    async def lie(site: Any, task: pb.Task) -> pb.Received:
        made = make_content(Payload(metrics={"metrics": {"cohort-count": count}}), None)
        return await site.answer(task, made)

    plan = ground.plan(f"bad-count-{list(COUNTS).index(name)}")
    refusals, journal = attack(ground, plan, lie, "query.cohort")
    assert len(refusals) == 1, "asked again, though the same answer would come"
    assert expected in refusals[0]
    assert [line for line in journal if expected in line] == journal


def test_a_count_with_arrays(ground: Any) -> None:
    async def lie(site: Any, task: pb.Task) -> pb.Received:
        made = make_content(
            Payload(arrays={"more": {"x": GOOD}}, metrics={"metrics": {"cohort-count": 40.0}}), None
        )
        return await site.answer(task, made)

    refusals, _ = attack(ground, ground.plan("count-with-arrays"), lie, "query.cohort")
    assert "expected the records" in refusals[0]


TABLES = {
    "short": ([9.0, 1.0, 2.0], "table of 4 numbers"),
    "long": ([9.0, 1.0, 2.0, 8.0, 0.0], "table of 4 numbers"),
    "NaN": ([9.0, float("nan"), 2.0, 8.0], "not a noised count"),
    "infinite": ([9.0, float("-inf"), 2.0, 8.0], "not a noised count"),
    "huge": ([9.0, 1e300, 2.0, 8.0], "not a noised count"),
    "truths": ([True, False, True, True], "not a noised count"),
    "texts": (["9", "1", "2", "8"], "not a noised count"),
    "no list": (9.0, "table of 4 numbers"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_bad_hold_out_table(ground: Any, name: str) -> None:
    """It is left out; the study ends well, and only the honest tables are kept for the card."""
    table, expected = TABLES[name]

    async def lie(site: Any, task: pb.Task) -> pb.Received:
        metrics = {"num-examples": 40.0, "hold-out-table": table}
        return await site.answer(task, make_content(Payload(metrics={"metrics": metrics}), None))

    plan = ground.plan(f"bad-table-{list(TABLES).index(name)}")
    refusals, journal = attack(ground, plan, lie, "evaluate")
    assert all(expected in refusal for refusal in refusals), refusals
    assert [expected in line for line in journal] == [True]
    store = ground.home.store()
    kept = {site for _, site, _, _ in store.answers(plan.study, "evaluate")}
    store.close()
    assert kept == {"aal", "bergen"}


def test_an_answer_twice(ground: Any) -> None:
    """The second is told that it was taken; it does not count twice, even if it differs."""
    plan = ground.plan("twice", sites__quorum=3)

    async def twice(site: Any, task: pb.Task) -> None:
        made = make_content(ground.honest_payload("mallory", task), site.blobs)
        other = content({"gradient_sum": 2 * GOOD}) if task.kind == "train" else made
        for sent in (made, other):
            answer = pb.Answer(
                task_id=task.task_id,
                study=task.study,
                plan_hash=task.plan_hash,
                round=task.round,
                content=sent,
            )
            await site.send(pb.FromSite(answer=answer))

    async def scenario() -> None:
        async with ground.coordinator() as store:
            players = {name: ground.honest(name) for name in ("aal", "bergen")}
            await ground.carry_out(plan, {**players, "mallory": twice}, store)
            assert ground.state(plan, store) == "finished: "
            expected = ground.model_of(plan, "aal", "bergen", "mallory")
            np.testing.assert_allclose(ground.model(plan, store), expected, rtol=1e-12)

    asyncio.run(scenario())


def test_too_few_are_left(ground: Any) -> None:
    """Where the plan needs all three, one bad update ends the study with a sentence."""
    plan = ground.plan("too-few", sites__quorum=3)

    async def lie(site: Any, task: pb.Task) -> None:
        made = content({"gradient_sum": GOOD * np.nan}) if task.kind == "train" else None
        if made is None:
            await ground.honest("mallory")(site, task)
        else:
            await site.answer(task, made)

    async def scenario() -> None:
        async with ground.coordinator() as store:
            players = {name: ground.honest(name) for name in ("aal", "bergen")}
            await ground.carry_out(plan, {**players, "mallory": lie}, store)
            assert ground.state(plan, store) == (
                "failed: 2 of the 3 answers needed came in; refused or impossible: mallory"
            )

    asyncio.run(scenario())

"""Who is contacted about a study, who is waited for, and how one ends that cannot go on."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from fedtwin_protocol.v1 import exchange_pb2 as pb

HARMLESS = {"welcome", "pulse", "catalogue"}


async def look_on(ground: Any, until: asyncio.Event, decide: bool | None) -> set[str]:
    """A site that asks what there is, and decides so or not at all; what it was sent."""
    async with ground.raw_site(ground, "mallory") as site:
        await site.greet()
        await site.send(pb.FromSite(ask_catalogue=pb.AskCatalogue()))
        offers = (await site.receive("catalogue")).catalogue.offers
        assert offers
        if decide is False:
            await site.join(ground.current, take_part=False)
        while not until.is_set():
            await site.send(pb.FromSite(pulse=pb.Pulse()))
            await site.receive("pulse")
            await asyncio.sleep(0.02)
        return {message.WhichOneof("body") for message in site.received}


@pytest.mark.parametrize("decide", [None, False])
def test_who_has_not_said_yes_hears_nothing(ground: Any, decide: bool | None) -> None:
    """No task and no content: from those who have not decided, and from those who declined."""
    plan = ground.plan(f"not-approved-{decide}".lower(), sites__gathering_s=0.3)
    ground.current = plan.study

    async def scenario() -> None:
        async with ground.coordinator() as store:
            ground.open(plan)
            done = asyncio.Event()
            looking = asyncio.create_task(look_on(ground, done, decide))
            players = {name: ground.honest(name) for name in ("aal", "bergen")}
            await ground.play(plan, players, store)
            done.set()
            assert await looking <= HARMLESS
            assert ground.state(plan, store) == "finished: "

    asyncio.run(scenario())


def test_who_leaves_hears_nothing_more(ground: Any) -> None:
    """In the middle of a round: it is not waited for, and not asked again."""
    plan = ground.plan("leaves", sites__deadline_s=60)
    asked: list[int] = []

    async def leaving(site: Any, task: pb.Task) -> None:
        asked.append(task.round)
        if task.kind == "train" and task.round == 2:
            await site.send(
                pb.FromSite(decision=pb.Decision(study=task.study, plan_hash=task.plan_hash))
            )
            return
        await ground.honest("mallory")(site, task)

    async def scenario() -> None:
        async with ground.coordinator() as store:
            players = {name: ground.honest(name) for name in ("aal", "bergen")}
            await ground.carry_out(plan, {**players, "mallory": leaving}, store)
            assert ground.state(plan, store) == "finished: "
            sites = [closed.sites for closed in store.rounds(plan.study)]
            assert sites == [("aal", "bergen", "mallory"), ("aal", "bergen"), ("aal", "bergen")]

    asyncio.run(scenario())
    assert asked == [0, 1, 2]


def test_a_silent_site_costs_one_deadline(ground: Any) -> None:
    """The round closes with those who answered; the silent one is asked again when it speaks."""
    plan = ground.plan("silent", sites__deadline_s=2, training__rounds=8)
    asked: list[int] = []

    async def silent(site: Any, task: pb.Task) -> None:
        asked.append(task.round)
        if task.kind != "train":
            await ground.honest("mallory")(site, task)

    async def scenario() -> None:
        async with ground.coordinator() as store:
            players = {name: ground.honest(name) for name in ("aal", "bergen")}
            began = time.monotonic()
            await ground.carry_out(plan, {**players, "mallory": silent}, store)
            assert time.monotonic() - began < 8 * 2
            assert ground.state(plan, store) == "finished: "
            assert {closed.sites for closed in store.rounds(plan.study)} == {("aal", "bergen")}
            expected = ground.model_of(plan, "aal", "bergen")
            np.testing.assert_allclose(ground.model(plan, store), expected, rtol=1e-12)

    asyncio.run(scenario())
    assert asked == [0, 1]


def test_a_latecomer_that_never_counts_holds_nobody_up(ground: Any) -> None:
    plan = ground.plan("uncounted", sites__deadline_s=60, sites__gathering_s=0.1)

    async def silent(site: Any, task: pb.Task) -> None:
        assert task.kind == "query.cohort"

    async def slowly(site: Any, task: pb.Task) -> None:
        await asyncio.sleep(0.3)
        await ground.honest("aal")(site, task)

    async def scenario() -> None:
        async with ground.coordinator() as store:
            ground.open(plan)
            players = {"aal": slowly, "bergen": ground.honest("bergen")}
            playing = asyncio.create_task(ground.play(plan, players, store))
            while store.study(plan.study).status == "open":
                await asyncio.sleep(0.02)
            began = time.monotonic()
            late = asyncio.create_task(ground.play(plan, {"mallory": silent}, store))
            await asyncio.gather(playing, late)
            assert time.monotonic() - began < 8
            assert ground.state(plan, store) == "finished: "

    asyncio.run(scenario())


@pytest.mark.parametrize("welcome", [True, False])
def test_a_latecomer(ground: Any, welcome: bool) -> None:
    """It takes part from the next round on, or never, as the plan says."""
    plan = ground.plan(
        f"late-{welcome}".lower(),
        sites__join_late=welcome,
        sites__gathering_s=0.1,
        training__rounds=20,
    )
    joined = asyncio.Event()

    async def patient(site: Any, task: pb.Task) -> None:
        if task.round == 3:
            await joined.wait()
            await asyncio.sleep(0.2)
        await asyncio.sleep(0.05)
        await ground.honest("aal")(site, task)

    async def late(site: Any, task: pb.Task) -> None:
        assert welcome, f"asked for {task.kind} in round {task.round}"
        await ground.honest("mallory")(site, task)

    async def scenario() -> list[tuple[str, ...]]:
        async with ground.coordinator() as store:
            ground.open(plan)
            players = {"aal": patient, "bergen": ground.honest("bergen")}
            playing = asyncio.create_task(ground.play(plan, players, store))
            while len(store.rounds(plan.study)) < 2:
                await asyncio.sleep(0.02)
            joining = asyncio.create_task(ground.play(plan, {"mallory": late}, store))
            while "mallory" not in store.decisions(plan.study):
                await asyncio.sleep(0.02)
            joined.set()
            await asyncio.gather(playing, joining)
            assert ground.state(plan, store) == "finished: "
            return [closed.sites for closed in store.rounds(plan.study)]

    sites = asyncio.run(scenario())
    two, three = ("aal", "bergen"), ("aal", "bergen", "mallory")
    assert sites[:3] == [two, two, two]
    assert sites[-1] == (three if welcome else two)


def test_a_quorum_that_is_lost_and_comes_back(ground: Any) -> None:
    """Round 2 waits while only one site is here, says so, and goes on when the other returns."""
    plan = ground.plan("lost-quorum", sites__deadline_s=1, sites__gathering_s=0.3)
    away = asyncio.Event()

    async def scenario() -> list[str]:
        async with ground.coordinator() as store:

            async def leaving(site: Any, task: pb.Task) -> None:
                await ground.honest("bergen")(site, task)
                if task.round == 1:
                    away.set()
                    await asyncio.sleep(3600)

            ground.open(plan)
            first = asyncio.create_task(ground._attend("bergen", plan.study, leaving))
            staying = asyncio.create_task(
                ground.play(plan, {"aal": ground.honest("aal")}, store, 40)
            )
            await away.wait()
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            while not any("waits" in event.text for event in store.journal(plan.study)):
                assert len(store.rounds(plan.study)) <= 1 or not staying.done()
                await asyncio.sleep(0.05)
            back = asyncio.create_task(
                ground.play(plan, {"bergen": ground.honest("bergen")}, store)
            )
            await asyncio.gather(staying, back)
            assert ground.state(plan, store) == "finished: "
            return [event.text for event in store.journal(plan.study)]

    journal = asyncio.run(scenario())
    assert any("waits" in line for line in journal), journal


def test_a_quorum_that_cannot_come_back(ground: Any) -> None:
    """Two of the three sites that the plan names decline: the study fails with a sentence."""
    plan = ground.plan("no-quorum", sites__invited=["aal", "bergen", "mallory"])

    async def scenario() -> None:
        async with ground.coordinator() as store:
            ground.open(plan)
            for name in ("aal", "bergen"):
                async with ground.raw_site(ground, name) as site:
                    await site.greet()
                    await site.join(plan.study, take_part=False)
                    await site.send(pb.FromSite(ask_catalogue=pb.AskCatalogue()))
                    await site.receive("catalogue")
            await ground.ended(store, plan.study)
            assert ground.state(plan, store) == (
                "failed: 1 sites can still take part, the plan needs 2; not taking part: aal, "
                "bergen"
            )

    asyncio.run(scenario())


def test_a_plan_that_expires_while_it_waits(ground: Any) -> None:
    expires = datetime.now(UTC) + timedelta(seconds=1.5)
    plan = ground.plan("expires", expires=expires.isoformat())

    async def scenario() -> None:
        async with ground.coordinator() as store:
            ground.open(plan)
            await ground.ended(store, plan.study)
            assert "the plan expired on" in ground.state(plan, store)
            assert "0 of 3 rounds done" in ground.state(plan, store)

    asyncio.run(scenario())


def test_a_plan_that_cannot_be_read_any_more(ground: Any) -> None:
    """The coordinator ends that study with a sentence; other studies go on."""
    bad, good = ground.plan("unreadable"), ground.plan("beside", sites__gathering_s=0.3)
    ground.open(bad)
    ground.open(good)
    store = ground.home.store()
    envelope = store.study(bad.study).envelope.replace(b"payloadType", b"payloadtipe")
    store.connection.execute(
        "UPDATE studies SET envelope = ? WHERE study = ?", (envelope, bad.study)
    )
    store.close()

    async def scenario() -> None:
        async with ground.coordinator() as running:
            players = {name: ground.honest(name) for name in ("aal", "bergen", "mallory")}
            await ground.ended(running, bad.study)
            sentence = "failed: the plan in the coordinator's database cannot be used"
            assert ground.state(bad, running).startswith(sentence)
            await ground.play(good, players, running)
            assert ground.state(good, running) == "finished: "

    asyncio.run(scenario())


def test_a_decision_that_comes_too_late(ground: Any) -> None:
    """The study has ended: the site hears so in the catalogue, and keeps its link."""
    plan = ground.plan("too-late", sites__gathering_s=0.1)

    async def scenario() -> None:
        async with ground.coordinator() as store:
            players = {name: ground.honest(name) for name in ("aal", "bergen")}
            await ground.carry_out(plan, players, store)
            async with ground.raw_site(ground, "mallory") as site:
                await site.greet()
                decision = pb.Decision(
                    study=plan.study, plan_hash=bytes.fromhex(plan.hash), take_part=True
                )
                await site.send(pb.FromSite(decision=decision))
                await site.send(pb.FromSite(ask_catalogue=pb.AskCatalogue()))
                offers = (await site.receive("catalogue")).catalogue.offers
                assert "finished" in {offer.state for offer in offers}

    asyncio.run(scenario())

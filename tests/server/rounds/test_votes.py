"""Votes over real links: a liar in the sum, a liar among the voters, a crash in between.

Sites answer by hand. An honest one votes by a table of its own: how far the model lies from where
its patients are.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from fedtwin_protocol.content import make_content, read_content
from fedtwin_protocol.payload import Payload
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_protocol.votes import GOOD, VOTE, VOTE_TASK
from fedtwin_server.candidates import CandidateBook
from fedtwin_server.consortium import run_facts

HONEST = ("aal", "bergen", "cork")
AIM = np.array([1.0, -2.0, 0.5])
COUNT, STEP = 600.0, 0.25
Answering = Callable[[Any, pb.Task], Awaitable[None]]


@pytest.fixture(scope="module", autouse=True)
def fourth_member(ground: Any) -> None:
    """Beside aal, bergen and mallory."""

    async def member() -> None:
        async with ground.coordinator():
            await ground.enrol("cork")

    asyncio.run(member())


def plan_for(ground: Any, study: str, **changes: Any) -> Any:
    usual = {
        "training__rounds": 4,
        "training__learning_rate": 1.0,
        "privacy__vote_noise": 5.0,
        "privacy__evaluation_noise": None,
        "privacy__noise_multiplier": 3.0,
        "sites__quorum": 3,
        "sites__gathering_s": 10,
        "sites__deadline_s": 20,
    }
    return ground.plan(study, **{**usual, **changes})


def flat(arrays: Any) -> np.ndarray:
    return np.concatenate([np.ravel(array) for array in arrays.values()])


def honest_payload(site: Any, task: pb.Task) -> Payload:
    """A quarter of the way to where the patients are; and a vote by the distance from there."""
    if task.kind == "query.cohort":
        return Payload(metrics={"metrics": {"cohort-count": COUNT}})
    models = read_content(task.content, site.blobs).arrays
    if task.kind == VOTE_TASK:
        candidate, good = (
            float(np.linalg.norm(flat(models[name]) - AIM)) for name in ("arrays", GOOD)
        )
        return Payload(metrics={"metrics": {VOTE: 100 * float(np.clip(candidate - good, -1, 1))}})
    return Payload(
        arrays={"arrays": {"gradient_sum": STEP * COUNT * (flat(models["arrays"]) - AIM)}},
        metrics={"metrics": {"num-examples": COUNT}},
    )


def player(
    poison: Callable[[int], bool] = lambda _: False,
    vote: Callable[[int], float | None] = lambda _: None,
    before_vote: Callable[[int], Awaitable[None]] | None = None,
) -> Answering:
    """A site that is honest but for what is said."""

    async def answer(site: Any, task: pb.Task) -> None:
        payload = honest_payload(site, task)
        if task.kind == "train" and poison(task.round):
            pushed = payload.arrays["arrays"]["gradient_sum"]
            pushed = -pushed / np.linalg.norm(pushed) * COUNT
            payload = Payload(arrays={"arrays": {"gradient_sum": pushed}}, metrics=payload.metrics)
        if task.kind == VOTE_TASK:
            if before_vote is not None:
                await before_vote(task.round)
            if (said := vote(task.round)) is not None:
                payload = Payload(metrics={"metrics": {VOTE: said}})
        await site.answer(task, make_content(payload, site.blobs))

    return answer


def carry_out(ground: Any, plan: Any, players: dict[str, Answering], check: Callable) -> None:
    async def scenario() -> None:
        async with ground.coordinator() as store:
            await ground.carry_out(plan, players, store)
            check(store)

    asyncio.run(scenario())


def verdicts(store: Any, plan: Any) -> list[str]:
    return [one.verdict for one in CandidateBook(store.connection).all(plan.hash)]


def journal(store: Any, plan: Any) -> str:
    return "\n".join(event.text for event in store.journal(plan.study))


def everybody(**liar: Any) -> dict[str, Answering]:
    return {**{name: player() for name in HONEST}, "mallory": player(**liar)}


def test_honest_rounds_are_kept(ground: Any) -> None:
    plan = plan_for(ground, "votes-honest")

    def check(store: Any) -> None:
        assert ground.state(plan, store) == "finished: "
        assert verdicts(store, plan) == ["kept"] * 4
        assert "went wrong" not in journal(store, plan)
        np.testing.assert_allclose(ground.model(plan, store), AIM * (1 - 0.75**4), rtol=1e-9)

    carry_out(ground, plan, everybody(), check)


def coalition(number: int) -> bool:
    """Rounds in which the sum is spoilt."""
    return number in {2, 3}


def spoilt_by_all(**liar: Any) -> dict[str, Answering]:
    """The sum as a secure one would be that somebody spoilt: nobody sees by whom."""
    return {
        **{name: player(poison=coalition) for name in HONEST},
        "mallory": player(poison=coalition, **liar),
    }


@pytest.mark.parametrize("push", [None, -1e9])
def test_a_spoilt_sum_is_thrown_away(ground: Any, push: float | None) -> None:
    """Whatever the liar votes; the next round starts from the last good model, and the card says.

    The sum is spoilt as a whole, so that no site can be blamed for it.
    """
    plan = plan_for(ground, f"votes-spoilt-{push is None}".lower())

    def check(store: Any) -> None:
        assert ground.state(plan, store) == "finished: "
        assert verdicts(store, plan) == ["kept", "thrown away", "thrown away", "kept"]
        voters = 4 if push is None else 3
        said = f"round 2 went wrong: {voters} of 4 hospitals' held-out patients were worse off"
        assert said in journal(store, plan)
        np.testing.assert_allclose(ground.model(plan, store), AIM * (1 - 0.75**2), rtol=1e-9)
        closed = store.rounds(plan.study)
        assert [bool(record.sites) for record in closed] == [True, False, False, True]
        facts = run_facts(store, plan, datetime.now(UTC))
        assert set(facts.gone_wrong) == {2, 3}
        assert facts.rounds_used == dict.fromkeys((*HONEST, "mallory"), 2)

    carry_out(ground, plan, spoilt_by_all(vote=lambda _: push), check)


LIES = {"large": 1e9, "nan": float("nan"), "inf": float("inf"), "absurd": 1e300}


@pytest.mark.parametrize("name", LIES)
def test_a_liar_alone_blocks_nothing(ground: Any, name: str) -> None:
    """A vote without bounds is left out of the sum; one that is no number is refused."""
    plan, lie = plan_for(ground, f"votes-blocked-{name}"), LIES[name]

    def check(store: Any) -> None:
        assert ground.state(plan, store) == "finished: "
        assert verdicts(store, plan) == ["kept"] * 4
        np.testing.assert_allclose(ground.model(plan, store), AIM * (1 - 0.75**4), rtol=1e-9)
        if name != "large":
            refused = [e.text for e in store.journal(plan.study) if e.site == "mallory"]
            assert len(refused) == 4
            assert all("vote" in text for text in refused)

    carry_out(ground, plan, everybody(vote=lambda _: lie), check)


def test_when_every_round_goes_wrong_nothing_is_released(ground: Any) -> None:
    plan = plan_for(ground, "votes-all-wrong", training__average_last=2)
    players = {name: player(poison=lambda _: True) for name in (*HONEST, "mallory")}

    def check(store: Any) -> None:
        assert ground.state(plan, store).startswith(
            "failed: none of the 4 rounds made a model that could be kept, so nothing is released"
        )

    carry_out(ground, plan, players, check)


def test_the_mean_of_the_last_models_leaves_out_what_went_wrong(ground: Any) -> None:
    """The first round went wrong, so the model that the study began with is in no mean either."""
    plan = plan_for(ground, "votes-mean", training__average_last=4)
    players = {name: player(poison=lambda number: number == 1) for name in (*HONEST, "mallory")}

    def check(store: Any) -> None:
        assert verdicts(store, plan) == ["thrown away", "kept", "kept", "kept"]
        wanted = AIM * (1 - np.mean([0.75, 0.75**2, 0.75**3]))
        np.testing.assert_allclose(ground.model(plan, store), wanted, rtol=1e-9)

    carry_out(ground, plan, players, check)


def test_momentum_of_a_round_that_went_wrong_is_forgotten(ground: Any) -> None:
    plan = plan_for(ground, "votes-momentum", training__momentum=0.5)

    def check(store: Any) -> None:
        assert verdicts(store, plan) == ["kept", "thrown away", "thrown away", "kept"]
        model, velocity = np.zeros(3), np.zeros(3)
        for _ in range(2):
            velocity = 0.5 * velocity + STEP * (model - AIM)
            model = model - velocity
        np.testing.assert_allclose(ground.model(plan, store), model, rtol=1e-9)

    carry_out(ground, plan, spoilt_by_all(), check)


def test_harm_in_small_steps_is_seen_in_the_end(ground: Any) -> None:
    """Each round is voted a little worse, below the noise of a round: nothing is released."""
    plan = plan_for(ground, "votes-slowly", training__rounds=12)
    worse = {name: player(vote=lambda _: 5.0) for name in (*HONEST, "mallory")}

    def check(store: Any) -> None:
        assert verdicts(store, plan) == ["kept"] * 12
        assert "by small steps that no single round showed" in ground.state(plan, store)

    carry_out(ground, plan, worse, check)


def test_small_sites_are_not_asked(ground: Any) -> None:
    """Two hospitals that cannot be heard abstain, and with them a judgement is impossible."""
    plan = plan_for(ground, "votes-too-small", privacy__vote_noise=130.0)

    def check(store: Any) -> None:
        state = ground.state(plan, store)
        assert state.startswith("failed: 0 of the 4 sites take part and have enough held-out")
        assert not store.rounds(plan.study)
        assert not store.answers(plan.study, "train"), "a round was paid for"

    carry_out(ground, plan, everybody(), check)


def test_the_coordinator_is_stopped_while_votes_come_in(ground: Any) -> None:
    """The same candidate is judged again: nobody trains twice, and votes that came in count."""
    plan = plan_for(ground, "votes-stopped", sites__quorum=4)
    trained: list[tuple[str, int]] = []
    voted: list[tuple[str, int]] = []
    held = asyncio.Event()

    def watched(name: str, inner: Answering) -> Answering:
        async def answer(site: Any, task: pb.Task) -> None:
            if task.kind == "train":
                trained.append((name, task.round))
            await inner(site, task)
            if task.kind == VOTE_TASK:
                voted.append((name, task.round))

        return answer

    async def hold(number: int) -> None:
        if number == 2 and not held.is_set():
            held.set()
            await asyncio.sleep(60)  # never voted before the coordinator is gone

    async def scenario() -> None:
        players = {name: watched(name, player()) for name in HONEST}
        players["mallory"] = watched("mallory", player(before_vote=hold))
        async with ground.coordinator() as store:
            ground.open(plan)
            playing = asyncio.create_task(ground.play(plan, players, store, 60))
            await asyncio.wait_for(held.wait(), 20)
            while len([one for one in voted if one[1] == 2]) < 3:
                await asyncio.sleep(0.05)
            while len(store.answers(plan.study, VOTE_TASK)) < 7:
                await asyncio.sleep(0.05)
            before = CandidateBook(store.connection).get(plan.hash, 2)
            playing.cancel()
            await asyncio.gather(playing, return_exceptions=True)
        assert before is not None
        assert before.verdict == ""
        async with ground.coordinator() as store:
            await ground.play(plan, players, store, 30)
            assert ground.state(plan, store) == "finished: "
            after = CandidateBook(store.connection).get(plan.hash, 2)
            assert after is not None
            assert after.verdict == "kept"
            assert len(after.votes) == 4
            np.testing.assert_allclose(ground.model(plan, store), AIM * (1 - 0.75**4), rtol=1e-9)

    asyncio.run(scenario())
    assert sorted(trained) == sorted((n, r) for n in (*HONEST, "mallory") for r in range(1, 5))
    assert len(voted) == len(set(voted)), "a site was asked twice for the same vote"


def test_a_site_that_does_not_vote_holds_nobody_up(ground: Any) -> None:
    """The deadline passes with three votes, and they decide."""
    plan = plan_for(ground, "votes-silent", sites__deadline_s=2, training__rounds=2)

    async def never(number: int) -> None:
        if number == 1:
            await asyncio.sleep(8)

    def check(store: Any) -> None:
        assert ground.state(plan, store) == "finished: "
        assert verdicts(store, plan) == ["kept", "kept"]
        first = CandidateBook(store.connection).get(plan.hash, 1)
        assert first is not None
        assert set(first.votes) == set(HONEST)

    carry_out(ground, plan, everybody(before_vote=never), check)

"""A Flower strategy with a site that answers out of step: the others' round is theirs."""

import asyncio
from typing import Any

import numpy as np
import pytest

from fedtwin_protocol.content import make_content
from fedtwin_protocol.payload import Payload
from fedtwin_protocol.v1 import exchange_pb2 as pb

pytestmark = pytest.mark.filterwarnings("ignore:'click:DeprecationWarning")  # Flower's import


def models(name: str) -> dict[str, Any]:
    value = {"aal": 0.1, "bergen": 0.3, "mallory": 0.5}[name]
    return {"weights": np.full(2, value), "intercept": np.full(1, value)}


def payload(name: str, **more: Any) -> Payload:
    metrics = {"num-examples": 40.0, "loss": 0.5, **more}
    return Payload(arrays={"arrays": models(name)}, metrics={"metrics": metrics})


ANSWERS = {
    "one more metric": (payload("mallory", extra=1.0), True),
    "NaN metric": (payload("mallory", extra=float("nan")), False),
    "another type": (payload("mallory", loss="low"), False),
    "no loss": (
        Payload(arrays={"arrays": models("mallory")}, metrics={"metrics": {"num-examples": 40.0}}),
        True,
    ),
    "more arrays": (
        Payload(
            arrays={"arrays": models("mallory"), "more": {}},
            metrics={"metrics": {"num-examples": 40.0, "loss": 0.5}},
        ),
        False,
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("strategy", ["FedAvg", "FedTrimmedAvg"])
def test_an_answer_that_would_stop_flower(ground: Any, strategy: str, name: str) -> None:
    answer, admitted = ANSWERS[name]
    plan = ground.plan(
        f"flower-{strategy.lower()}-{list(ANSWERS).index(name)}",
        training={
            "mechanism": "local_steps",
            "rounds": 2,
            "learning_rate": 0.5,
            "local_steps": 1,
        },
        aggregation={"rule": "flower", "strategy": strategy},
    )

    def player(site_name: str, made: Payload) -> Any:
        async def act(site: Any, task: pb.Task) -> None:
            if task.kind == "train":
                await site.answer(task, make_content(made, site.blobs))
            else:
                await ground.honest(site_name)(site, task)

        return act

    async def scenario() -> None:
        async with ground.coordinator() as store:
            players = {site: player(site, payload(site)) for site in ("aal", "bergen")}
            await ground.carry_out(plan, {**players, "mallory": player("mallory", answer)}, store)
            assert ground.state(plan, store) == "finished: "
            np.testing.assert_allclose(ground.model(plan, store), 0.3 if admitted else 0.2)

    asyncio.run(scenario())

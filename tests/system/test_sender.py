"""Who wrote a message is told by the certificate of its link and by nothing else."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import fedtwin.demo
from fedtwin.demo.consortium import LocalConsortium
from fedtwin_protocol.blobs import BlobStore
from fedtwin_protocol.channel import grpc
from fedtwin_protocol.content import make_content
from fedtwin_protocol.payload import Payload
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_server.coordinator import Home

PLAN = Path(fedtwin.demo.__file__).parent / "plans" / "synthetic.yaml"


def add_study(consortium: LocalConsortium, **sites: Any) -> str:
    plan = yaml.safe_load(PLAN.read_text())
    plan["sites"] |= {"quorum": 2, "gathering_s": 0.2, **sites}
    plan["privacy"] |= {"mode": "local", "vote_noise": None}
    path = consortium.folder / "plan.yaml"
    path.write_text(yaml.safe_dump(plan))
    home = ("--home", str(consortium.server))
    consortium.run("server", "studies", "add", str(path), *home, *consortium.keys)
    return str(plan["study"])


@pytest.fixture
def study(consortium: LocalConsortium) -> str:
    consortium.open()
    consortium.enrol("alpha")
    consortium.enrol("beta")
    return add_study(consortium)


def kept(consortium: LocalConsortium, study: str) -> list[str]:
    """The sites whose answers the coordinator has kept."""
    store = Home(folder=consortium.server).store()
    found = [site for _, site, _, _ in store.answers(study, "query.cohort")]
    store.close()
    return found


async def refused(site: Any, message: pb.FromSite) -> str:
    """Send a message that ends the link; the sentence it is ended with."""
    await site.send(message)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await site.receive("never")
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    return str(caught.value.details())


def test_a_site_reaches_nothing_that_was_meant_for_another(
    consortium: LocalConsortium, raw_site: Callable
) -> None:
    """A study that invites beta alone: alpha is not offered it, and cannot speak in it."""
    consortium.open()
    consortium.enrol("alpha")
    consortium.enrol("beta")
    study = add_study(consortium, invited=["beta", "gamma"])

    async def play() -> tuple[int, str]:
        async with raw_site(consortium, "beta") as beta, raw_site(consortium, "alpha") as alpha:
            await beta.greet()
            plan_hash = await beta.join(study)
            await alpha.greet()
            await alpha.send(pb.FromSite(ask_catalogue=pb.AskCatalogue()))
            offers = (await alpha.receive("catalogue")).catalogue.offers
            decision = pb.Decision(study=study, plan_hash=plan_hash, take_part=True)
            return len(offers), await refused(alpha, pb.FromSite(decision=decision))

    offers, sentence = asyncio.run(play())
    assert offers == 0
    assert "the study does not invite" in sentence
    store = Home(folder=consortium.server).store()
    assert store.decisions(study) == {"beta": True}
    store.close()


def test_an_answer_in_another_site_s_name_is_nobody_s(
    consortium: LocalConsortium, study: str, raw_site: Callable, tmp_path: Path
) -> None:
    """Alpha answers the task that was handed to beta; only beta's own answer counts."""
    count = Payload(metrics={"metrics": {"cohort-count": 100.0}})
    content = make_content(count, BlobStore(tmp_path / "blobs"))

    async def play() -> tuple[pb.Received, list[str], pb.Received]:
        async with raw_site(consortium, "alpha") as alpha, raw_site(consortium, "beta") as beta:
            for site in (alpha, beta):
                await site.greet()
                await site.join(study)
            await alpha.receive("task")
            task = (await beta.receive("task")).task
            forged = await alpha.answer(task, content)
            kept_then = kept(consortium, study)
            return forged, kept_then, await beta.answer(task, content)

    forged, kept_then, honest = asyncio.run(play())
    assert not forged.accepted
    assert "nobody waits for this answer" in forged.reason
    assert kept_then == []
    log = (consortium.folder / "coordinator.log").read_text()
    assert "refused an answer of alpha: nobody waits for this answer" in log
    assert honest.accepted
    assert kept(consortium, study) == ["beta"]

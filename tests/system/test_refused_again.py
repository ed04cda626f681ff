"""A peer that is refused again and again fills neither the log nor the journal."""

import asyncio
from collections.abc import Callable

from fedtwin.demo.consortium import LocalConsortium
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_server.coordinator import Home

from .test_sender import add_study


def test_a_site_that_is_refused_thousands_of_times(
    consortium: LocalConsortium, raw_site: Callable
) -> None:
    """Answers that nobody waits for, in a study that the site takes part in."""
    consortium.open()
    consortium.enrol("alpha")
    study = add_study(consortium)
    log = consortium.folder / "coordinator.log"

    async def play() -> int:
        async with raw_site(consortium, "alpha") as site:
            await site.greet()
            await site.join(study)
            for _ in range(3000):
                await site.send(pb.FromSite(answer=pb.Answer(task_id="x", study=study)))
            told = 0
            while told < 3000:
                await site.receive("received")
                told += 1
            return told

    assert asyncio.run(play()) == 3000
    lines = log.read_text().count("refused an answer of alpha")
    assert 100 <= lines < 1000
    store = Home(folder=consortium.server).store()
    assert 100 <= len(store.journal(study)) < 1000
    store.close()

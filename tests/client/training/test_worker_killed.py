"""A real training worker that is killed, or whose asker gives up: no reply is another order's."""

import asyncio
import os
import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedtwin_client.node.worker_process import WorkerProcess
from fedtwin_protocol.errors import FedtwinError, RecordError
from fedtwin_protocol.study import plan_from_yaml

PLANS = Path(__file__).parents[3] / "cli" / "fedtwin" / "demo" / "plans"
PRICE = {"op": "price", "orders": [2.0]}
COHORT = {"op": "cohort"}


@pytest.fixture
def worker(tmp_path: Path) -> WorkerProcess:
    plan_file = tmp_path / "plan.json"
    plan_file.write_bytes(plan_from_yaml(PLANS / "heart-disease.yaml").to_bytes())
    (tmp_path / "blobs").mkdir()
    now = datetime.now(UTC)
    return WorkerProcess(plan_file, tmp_path / "records", tmp_path / "blobs", "", now)


async def running(worker: WorkerProcess) -> int:
    """The process id, once it runs."""
    while worker._process is None:
        await asyncio.sleep(0.01)
    return worker._process.pid


def test_an_order_that_is_given_up_leaves_no_reply_behind(worker: WorkerProcess) -> None:
    """As when the link is cut while the worker computes."""

    async def scenario() -> None:
        asked = asyncio.create_task(worker.ask(PRICE))
        await running(worker)
        await asyncio.sleep(0.2)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        with pytest.raises(RecordError):  # there are no records: the cohort's own answer
            await worker.ask(COHORT)
        reply = await worker.ask(PRICE)
        assert reply.head["price"]["epsilon"] == pytest.approx(1, abs=0.01)
        await worker.stop()

    asyncio.run(scenario())


def test_a_killed_worker_is_started_again(
    worker: WorkerProcess, caplog: pytest.LogCaptureFixture
) -> None:
    """The order under which it died is carried out after all."""

    async def scenario() -> None:
        asked = asyncio.create_task(worker.ask(PRICE))
        first = await running(worker)
        await asyncio.sleep(0.3)
        os.kill(first, signal.SIGKILL)
        assert (await asked).head["ok"]
        assert await running(worker) != first
        await worker.stop()

    asyncio.run(scenario())
    assert "the training worker ended with status -9 while at work (memory?)" in caplog.text


def test_a_worker_that_always_dies_is_a_sentence(worker: WorkerProcess, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_bytes(b"no plan")

    async def scenario() -> None:
        with pytest.raises(FedtwinError, match=r"ended with status 1 while at work .*, 2 times"):
            await worker.ask(PRICE)
        await worker.stop()

    asyncio.run(scenario())


def test_stopping_gives_an_order_up(worker: WorkerProcess) -> None:
    """Nothing hangs, and the process is gone."""

    async def scenario() -> None:
        asked = asyncio.create_task(worker.ask(PRICE))
        process = await running(worker)
        await asyncio.sleep(0.2)
        async with asyncio.timeout(10):
            await worker.stop()
        with pytest.raises(asyncio.CancelledError):
            await asked
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)

    asyncio.run(scenario())

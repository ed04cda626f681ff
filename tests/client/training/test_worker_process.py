"""A training worker as the agent sees it: every reply belongs to its own order."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedtwin.demo.synthetic import PLAN
from fedtwin_client.node.worker_process import WorkerProcess
from fedtwin_protocol.study import plan_from_yaml

NOW = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.fixture
def worker(tmp_path: Path) -> WorkerProcess:
    plan_file = tmp_path / "plan.json"
    plan_file.write_bytes(plan_from_yaml(PLAN).to_bytes())
    return WorkerProcess(plan_file, tmp_path / "records", tmp_path / "contents", "", NOW)


def curve_lengths(reply: object) -> set[int]:
    return {len(item["rdp"]) for item in reply.head["price"]["mechanisms"]}


def test_an_abandoned_order_does_not_lend_its_reply_to_the_next(worker: WorkerProcess) -> None:
    async def ask_twice() -> set[int]:
        abandoned = asyncio.create_task(worker.ask({"op": "price", "orders": [2.0, 3.0, 4.0]}))
        while worker._process is None:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        abandoned.cancel()
        await asyncio.gather(abandoned, return_exceptions=True)
        try:
            return curve_lengths(await worker.ask({"op": "price", "orders": [2.0]}))
        finally:
            await worker.stop()

    assert asyncio.run(asyncio.wait_for(ask_twice(), 60)) == {1}


def test_a_worker_that_is_stopped_while_at_work_leaves_nothing_behind(
    worker: WorkerProcess,
) -> None:
    async def stop_in_the_middle() -> tuple[list[BaseException], int | None]:
        orders = [
            asyncio.create_task(worker.ask({"op": "price", "orders": [2.0]})) for _ in range(3)
        ]
        while worker._process is None:
            await asyncio.sleep(0.01)
        process = worker._process
        await worker.stop()
        outcomes = await asyncio.gather(*orders, return_exceptions=True)
        assert worker._process is None
        return outcomes, process.returncode

    outcomes, code = asyncio.run(asyncio.wait_for(stop_in_the_middle(), 60))
    assert all(isinstance(outcome, BaseException) for outcome in outcomes)
    assert code is not None

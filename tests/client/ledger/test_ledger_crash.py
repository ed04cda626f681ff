"""Kill -9 at every step between reserving a study and the last acknowledgement."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fedtwin_client.node.ledger import Ledger
from fedtwin_client.node.outbox import Outbox

DRIVER = Path(__file__).with_name("ledger_crash_driver.py")
TASKS = {"task-count", "task-1", "task-2", "task-3"}


def drive(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, str(DRIVER), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


def check_life(folder: Path) -> int:
    """Every rule that must hold however often the node was killed; returns the sends."""
    lines = [json.loads(line) for line in (folder / "wire.jsonl").read_text().splitlines()]
    sends = [line for line in lines if "sha256" in line]
    versions = {task: {line["sha256"] for line in sends if line["task"] == task} for task in TASKS}
    assert {task: len(found) for task, found in versions.items()} == dict.fromkeys(TASKS, 1), (
        "a task was released with different bytes, or not at all"
    )
    with Ledger(folder / "ledger.db") as ledger, Outbox(folder / "outbox.db") as outbox:
        ledger.verify()
        ledger.must_cover(line["task"] for line in sends)
        ledger.must_cover(outbox.tasks())
        account = ledger.account("heart")
        assert account.made == {"count": 1, "train": 3}, "charged more or less than was released"
        assert outbox.waiting() == ()
        assert outbox.left().messages >= len(sends), "a message left that is not in the list"
        assert list(outbox.blobs.iterdir()) == []
    return len(sends)


def test_a_node_killed_at_every_step_pays_for_all_it_released_and_resends_the_same_bytes(tmp_path):
    steps = int(drive("count", tmp_path / "whole"))
    assert steps > 60
    assert check_life(tmp_path / "whole") == len(TASKS)
    drive("at", tmp_path, 1, steps)
    sends = [check_life(tmp_path / f"life-{kill_at}") for kill_at in range(1, steps + 1)]
    assert max(sends) == len(TASKS) + 1, "no life was killed between sending and acknowledging"


@pytest.mark.parametrize("seed", [1, 2])
def test_a_node_killed_again_and_again_gets_to_the_same_end(tmp_path, seed):
    kills = int(drive("often", tmp_path / "life", seed))
    assert kills > 0
    check_life(tmp_path / "life")

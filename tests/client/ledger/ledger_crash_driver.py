"""A node's life of a few tasks, killed at every step: run as a program by test_ledger_crash.

Every run is a fork of this process that kills itself with SIGKILL at its n-th step, where each SQL
statement and each labelled step in between counts. The coordinator is a file that takes down what
it gets, and asks for what it has not yet got.

    ledger_crash_driver.py count FOLDER            how many steps a whole life has
    ledger_crash_driver.py at FOLDER FIRST LAST    one life for each step of the range
    ledger_crash_driver.py often FOLDER SEED       one life killed again and again at random
"""

import json
import os
import random
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from fedtwin_client.node.departures import Departure
from fedtwin_client.node.ledger import Ledger
from fedtwin_client.node.ledger_account import Allotment, Mechanism, Reservation
from fedtwin_client.node.ledger_limits import BudgetLimits
from fedtwin_client.node.outbox import Outbox, Outgoing
from fedtwin_client.node.renyi import ORDERS, gaussian

TASKS = (("task-count", "count"), ("task-1", "train"), ("task-2", "train"), ("task-3", "train"))
START = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
LIMITS = BudgetLimits(epsilon_per_study=2, epsilon_lifetime=4, delta_lifetime=1e-5)
Step = Callable[[str], None]


def reservation() -> Reservation:
    items = (("count", 20.0, 1), ("train", 12.0, 3))
    return Reservation(
        study="heart",
        plan_hash="ab" * 32,
        epsilon_pld=1.0,
        delta=1e-5,
        allotments=tuple(
            Allotment(
                mechanism=Mechanism(
                    kind=kind,
                    sigma=sigma,
                    sampling_rate=1.0,
                    steps=1,
                    population="everyone" if kind == "count" else "training",
                    rdp=tuple(gaussian(order, sigma) for order in ORDERS),
                ),
                charges=charges,
            )
            for kind, sigma, charges in items
        ),
    )


def live(folder: Path, step: Step) -> None:
    """What a node does from its start until every task is acknowledged."""
    wire = folder / "wire.jsonl"
    with (
        Ledger(folder / "ledger.db", trace=step) as ledger,
        Outbox(folder / "outbox.db", trace=step) as outbox,
    ):
        outbox.sweep()
        ledger.must_cover(outbox.tasks())
        ledger.reserve(reservation(), LIMITS, START)
        for number, (task, kind) in enumerate(TASKS):
            if answered(wire, task) == "acknowledged":
                continue
            answer(ledger, outbox, task, kind, START + timedelta(minutes=number), folder, step)
        outbox.prune()


def answer(ledger, outbox, task, kind, now, folder, step) -> None:
    step("asked")
    ready = outbox.get(task)
    if ready is None:
        ledger.charge("heart", task, kind, now)
        step("charged")
        noise = os.urandom(64)
        blob = folder / "outbox.db.blobs" / "draft"
        if kind == "train":
            blob.write_bytes(noise * 2000)
        step("drawn")
        ready = outbox.store(outgoing(task, kind, noise, blob), now)
    step("stored")
    body = ready.head + (ready.blob.read_bytes() if ready.blob else b"")
    outbox.sent(
        Departure(time=now, kind="answer", study="heart", bytes=len(body), held="64 numbers")
    )
    note(folder / "wire.jsonl", {"task": task, "sha256": sha256(body).hexdigest()})
    step("sent")
    outbox.acknowledge(task, now)
    note(folder / "wire.jsonl", {"task": task, "acknowledged": True})
    step("acknowledged")


def outgoing(task: str, kind: str, noise: bytes, blob: Path) -> Outgoing:
    if kind != "train":
        return Outgoing(task=task, study="heart", round=0, kind=kind, head=noise)
    content = noise * 2000
    return Outgoing(
        task=task,
        study="heart",
        round=1,
        kind=kind,
        head=noise,
        blob=blob,
        blob_sha256=sha256(content).hexdigest(),
        blob_size=len(content),
    )


def note(wire: Path, line: dict[str, object]) -> None:
    with wire.open("a") as file:
        file.write(json.dumps(line) + "\n")


def answered(wire: Path, task: str) -> str:
    lines = wire.read_text().splitlines() if wire.exists() else []
    states = [json.loads(line) for line in lines]
    done = any(line["task"] == task and line.get("acknowledged") for line in states)
    return "acknowledged" if done else "open"


def run(folder: Path, kill_at: int | None) -> tuple[bool, int]:
    """One start of the node: whether it came to its end, and how many steps it took."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        steps = 0

        def step(label: str) -> None:
            nonlocal steps
            steps += 1
            if steps == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        code = 1
        try:
            live(folder, step)
            os.write(writer, str(steps).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    told = os.read(reader, 100)
    os.close(reader)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise SystemExit(f"the node failed in {folder} after being killed at step {kill_at}")
    return os.WIFEXITED(status), int(told or b"0")


def main(command: str, folder: Path, *numbers: int) -> None:
    with TemporaryDirectory() as elsewhere:
        # What SQLCipher does at the first database of a process is done once, not in every fork.
        Ledger(Path(elsewhere) / "ledger.db").shut()
    if command == "count":
        folder.mkdir()
        print(run(folder, None)[1])
    elif command == "at":
        for kill_at in range(numbers[0], numbers[1] + 1):
            life = folder / f"life-{kill_at}"
            life.mkdir()
            assert not run(life, kill_at)[0], f"was not killed at step {kill_at}"
            assert run(life, None)[0]
    else:
        folder.mkdir()
        chance = random.Random(numbers[0])
        kills = 0
        while not run(folder, chance.randint(5, 60))[0]:
            kills += 1
        print(kills)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))

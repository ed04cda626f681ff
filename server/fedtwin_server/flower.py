"""Flower's strategies over our links: the one place of the coordinator that knows Flower.

`LinkGrid` is a `flwr.serverapp.Grid` whose nodes are sites: a strategy sends and receives through
it, unchanged. `FlowerRule` runs one round at a time (`configure_train`, the exchange,
`aggregate_train`), so that a study resumes from its last whole round with the strategy's own
moments; a reply that was refused reaches the strategy as that node's error.
"""

import asyncio
import hashlib
import inspect
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Final
from uuid import uuid4

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"

import flwr.app as flower_app
import flwr.serverapp.strategy as strategies
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedtwin_protocol.blobs import BlobStore
from fedtwin_protocol.content import make_content, read_content
from fedtwin_protocol.errors import PlanError
from fedtwin_protocol.flower_records import to_payload, to_records
from fedtwin_protocol.payload import Payload
from fedtwin_protocol.study import StudyPlan
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_server.admission import ArraySpec
from fedtwin_server.rules import Ask, Step, specs_of

logging.getLogger("flwr").setLevel(logging.ERROR)
REFUSED: Final = 1
Send = Callable[[str, Mapping[str, pb.Content]], Mapping[str, pb.Answer]]


def node_id(site: str) -> int:
    """A site's number for Flower: 63 bits of the SHA-256 of its name."""
    return int.from_bytes(hashlib.sha256(site.encode()).digest()[:8], "big") >> 1


class LinkGrid(Grid):
    """A Flower grid whose nodes are the sites of an exchange.

    Args:
        sites: who may be asked.
        send: carries tasks out, one a site, and returns the admitted answers; blocks, so a
            strategy runs in a thread of its own.
        blobs: contents.
    """

    def __init__(self, sites: Iterable[str], send: Send, blobs: BlobStore) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        self._sites = {node_id(site): site for site in sites}
        self._send = send
        self._blobs = blobs
        self._run = Run.create_empty(1)
        self._replies: dict[str, Message] = {}

    def set_run(self, run: Run) -> None:
        """Keep what Flower says of its run."""
        self._run = run

    @property
    def run(self) -> Run:
        """What Flower says of its run."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message as Flower makes it."""
        del group_id
        return Message(content, dst_node_id, message_type, ttl=ttl)

    def get_node_ids(self) -> list[int]:
        """The sites' numbers."""
        return sorted(self._sites)

    def get_nodes(self) -> list[Any]:
        """Flower's node descriptions are not kept: sites are known by their certificates."""
        return []

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send messages and keep the replies until they are pulled."""
        batch = list(messages)
        for message in self.send_and_receive(batch):
            self._replies[message.metadata.reply_to_message_id] = message
        return [message.metadata.message_id for message in batch]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies to messages that were pushed."""
        found = [self._replies.pop(name, None) for name in message_ids]
        return [message for message in found if message is not None]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Send a message to each site and wait for the answers; the plan's deadline holds.

        A site whose answer was refused, or that did not answer, replies with an error.
        """
        del timeout
        batch = list(messages)
        if not batch:
            return []
        contents: dict[str, pb.Content] = {}
        packed: dict[int, pb.Content] = {}
        for message in batch:
            message.metadata.__dict__["_message_id"] = uuid4().hex
            key = id(message.content)
            if key not in packed:
                packed[key] = make_content(to_payload(message.content), self._blobs)
            contents[self._sites[message.metadata.dst_node_id]] = packed[key]
        answers = self._send(str(batch[0].metadata.message_type), contents)
        return [self._reply(message, answers) for message in batch]

    def _reply(self, message: Message, answers: Mapping[str, pb.Answer]) -> Message:
        answer = answers.get(self._sites[message.metadata.dst_node_id])
        if answer is None:
            return Message(Error(REFUSED, "no answer that could be admitted"), reply_to=message)
        payload = read_content(answer.content, self._blobs)
        return Message(to_records(payload, flower_app), reply_to=message)


class FlowerRule:
    """One round of a Flower strategy at a time.

    Args:
        plan: names the strategy and its options.
        blobs: contents.

    Raises:
        PlanError: Flower has no such strategy, or it does not take such an option.
    """

    def __init__(self, plan: StudyPlan, blobs: BlobStore) -> None:
        self._plan = plan
        self._blobs = blobs
        self._strategy = make_strategy(plan)

    def expected(self, parameters: pb.Content) -> list[ArraySpec]:
        """The parameters' own table."""
        return specs_of(parameters)

    async def step(
        self, number: int, state: pb.RoundState, counts: Mapping[str, float], ask: Ask
    ) -> Step:
        """One round, with the strategy in a thread of its own."""
        loop = asyncio.get_running_loop()
        contributed: list[str] = []

        async def carry(kind: str, contents: Mapping[str, pb.Content]) -> Mapping[str, pb.Answer]:
            return await ask(kind, contents)

        def send(kind: str, contents: Mapping[str, pb.Content]) -> Mapping[str, pb.Answer]:
            work: Future[Mapping[str, pb.Answer]] = asyncio.run_coroutine_threadsafe(
                carry(kind, contents), loop
            )
            answers = work.result()
            contributed.extend(answers)
            return answers

        grid = LinkGrid(counts, send, self._blobs)
        parameters = await asyncio.to_thread(self._round, number, state, grid)
        memory = Payload(arrays=remember(self._strategy))
        return Step(
            parameters=make_content(parameters, self._blobs),
            memory=make_content(memory, self._blobs) if memory.arrays else pb.Content(),
            sites=tuple(sorted(contributed)),
        )

    def _round(self, number: int, state: pb.RoundState, grid: LinkGrid) -> Payload:
        if state.memory.records:
            recall(self._strategy, read_content(state.memory, self._blobs))
        before = read_content(state.parameters, self._blobs).arrays["arrays"]
        record = ArrayRecord({name: Array(array) for name, array in before.items()})
        messages = self._strategy.configure_train(number, record, ConfigRecord(), grid)
        replies = grid.send_and_receive(messages)
        after, _ = self._strategy.aggregate_train(number, replies)
        if after is None:
            return Payload(arrays={"arrays": before})
        moved = {name: after[name].numpy().astype(array.dtype) for name, array in before.items()}
        return Payload(arrays={"arrays": moved})


def make_strategy(plan: StudyPlan) -> Strategy:
    """The strategy that a plan names, asking every site that is here.

    Raises:
        PlanError: Flower has no such strategy, or it does not take such an option.
    """
    kind = getattr(strategies, plan.aggregation.strategy, None)
    if kind is None or not (isinstance(kind, type) and issubclass(kind, Strategy)):
        known = ", ".join(name for name in strategies.__all__ if name not in {"Strategy", "Result"})
        raise PlanError(f"Flower has no strategy '{plan.aggregation.strategy}'; it has: {known}")
    usual: dict[str, float | int | bool | str] = {
        "fraction_evaluate": 0.0,
        "min_train_nodes": plan.sites.quorum,
        "min_available_nodes": plan.sites.quorum,
    }
    takes = inspect.signature(kind.__init__).parameters
    options = {name: value for name, value in usual.items() if name in takes}
    options |= plan.aggregation.options
    try:
        return kind(**options)
    except (TypeError, ValueError) as error:
        raise PlanError(
            f"Flower's {plan.aggregation.strategy} does not take these options: {error}"
        ) from error


def remember(strategy: Strategy) -> dict[str, dict[str, np.ndarray[Any, Any]]]:
    """What a strategy carries from round to round: its attributes that are named arrays."""
    memory = {}
    for name, value in vars(strategy).items():
        if isinstance(value, dict) and value and _all_arrays(value.values()):
            memory[f"dict:{name}"] = {str(key): np.asarray(array) for key, array in value.items()}
        elif isinstance(value, list) and value and _all_arrays(value):
            memory[f"list:{name}"] = {str(key): array for key, array in enumerate(value)}
    return memory


def recall(strategy: Strategy, memory: Payload) -> None:
    """Give a strategy back what `remember` took from it."""
    for label, arrays in memory.arrays.items():
        form, _, name = label.partition(":")
        kept = {key: np.array(array) for key, array in arrays.items()}
        setattr(strategy, name, kept if form == "dict" else list(kept.values()))


def _all_arrays(values: Iterable[object]) -> bool:
    return all(isinstance(value, np.ndarray) for value in values)

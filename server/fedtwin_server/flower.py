"""Flower's strategies over our links: the one place of the coordinator that knows Flower.

`LinkGrid` is a `flwr.serverapp.Grid` whose nodes are sites: a strategy sends and receives through
it, unchanged. `FlowerRule` runs one round at a time (`configure_train`, the exchange,
`aggregate_train`), so that a study resumes from its last whole round with the strategy's own
moments. What a strategy gets to see was admitted before: arrays as the study has them, and of the
metrics only those that the strategy reads. The same round runs on any other `Grid`, Flower's
simulation included.
"""

import asyncio
import hashlib
import inspect
import logging
import os
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from fedtwin_protocol.errors import FedtwinError, PlanError
from fedtwin_protocol.flower_records import to_payload, to_records
from fedtwin_protocol.payload import Array as Numbers
from fedtwin_protocol.payload import FieldValue, Payload
from fedtwin_protocol.study import StudyPlan
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_server.admission import ArraySpec
from fedtwin_server.rules import Ask, Step, specs_of
from fedtwin_server.strategy_options import WEIGHT, StrategyWish, read_wish

logging.getLogger("flwr").setLevel(logging.ERROR)
REFUSED: Final = 1
# Set anew in every round from the model that is handed over.
_NOT_KEPT: Final = frozenset({"current_arrays"})
_DRAWING = threading.Lock()
Send = Callable[[str, Mapping[str, pb.Content]], Mapping[str, pb.Answer]]


def node_id(site: str) -> int:
    """A site's number for Flower: 63 bits of the SHA-256 of its name."""
    return int.from_bytes(hashlib.sha256(site.encode()).digest()[:8], "big") >> 1


class LinkGrid(Grid):
    """A Flower grid whose nodes are the sites of an exchange.

    Flower keeps one run's identity for the whole process, so every study has the same one here;
    studies are told apart by the tasks that carry the messages.

    Args:
        sites: who may be asked.
        send: carries tasks out, one a site, and returns the admitted answers; blocks, so a
            strategy runs in a thread of its own.
        blobs: contents.
        metrics: numbers of a reply that the strategy reads beside its weight.
    """

    def __init__(
        self, sites: Iterable[str], send: Send, blobs: BlobStore, metrics: Iterable[str] = ()
    ) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        self._sites = {node_id(site): site for site in sites}
        self._send = send
        self._blobs = blobs
        self._metrics = (WEIGHT, *metrics)
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

        A site whose answer was refused, or that did not answer, replies with an error. Replies
        come in the order of the sites' numbers, so that the same replies give the same sum.
        """
        del timeout
        batch = sorted(messages, key=lambda message: message.metadata.dst_node_id)
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
        found = read_content(answer.content, self._blobs)
        numbers = found.metrics["metrics"]
        seen = Payload(
            arrays={"arrays": found.arrays["arrays"]},
            metrics={"metrics": {name: numbers[name] for name in self._metrics}},
        )
        return Message(to_records(seen, flower_app), reply_to=message)


class FlowerRule:
    """One round of a Flower strategy at a time.

    Args:
        plan: names the strategy and its options.
        blobs: contents.

    Raises:
        PlanError: such a strategy, or such an option, cannot be had.
    """

    def __init__(self, plan: StudyPlan, blobs: BlobStore) -> None:
        self._plan = plan
        self._blobs = blobs
        self._strategy = make_strategy(plan, blobs)
        self.metrics = read_wish(plan).metrics

    def expected(self, parameters: pb.Content) -> list[ArraySpec]:
        """The parameters' own table."""
        return specs_of(parameters)

    async def step(
        self, number: int, state: pb.RoundState, counts: Mapping[str, float], ask: Ask
    ) -> Step:
        """One round, with the strategy in a thread of its own.

        Raises:
            PlanError: the strategy made no model of the answers.
        """
        loop = asyncio.get_running_loop()
        contributed: list[str] = []
        exchanges: set[asyncio.Task[Any]] = set()
        over = False

        async def carry(kind: str, contents: Mapping[str, pb.Content]) -> Mapping[str, pb.Answer]:
            if over or (exchange := asyncio.current_task()) is None:
                raise asyncio.CancelledError
            exchanges.add(exchange)
            return await ask(kind, contents)

        def send(kind: str, contents: Mapping[str, pb.Content]) -> Mapping[str, pb.Answer]:
            answers = asyncio.run_coroutine_threadsafe(carry(kind, contents), loop).result()
            contributed.extend(answers)
            return answers

        grid = LinkGrid(counts, send, self._blobs, self.metrics)
        try:
            parameters = await asyncio.to_thread(self._round, number, state, grid)
        finally:
            over = True
            for exchange in exchanges:  # a study that is stopped leaves no thread waiting
                exchange.cancel()
        memory = Payload(arrays=remember(self._strategy))
        return Step(
            parameters=make_content(parameters, self._blobs),
            memory=make_content(memory, self._blobs) if memory.arrays else pb.Content(),
            sites=tuple(sorted(contributed)),
        )

    def _round(self, number: int, state: pb.RoundState, grid: LinkGrid) -> Payload:
        if not state.memory.records:  # at the start, and after first rounds that went wrong
            self._strategy = _build(self._plan, read_wish(self._plan))
        else:
            recall(self._strategy, read_content(state.memory, self._blobs))
        before = read_content(state.parameters, self._blobs).arrays["arrays"]
        after = run_round(self._strategy, number, before, grid, self._plan.hash)
        return Payload(arrays={"arrays": after})


def run_round(
    strategy: Strategy, number: int, before: Mapping[str, Numbers], grid: Grid, seed: str
) -> dict[str, Numbers]:
    """One round of a strategy on a grid: `configure_train`, the exchange, `aggregate_train`.

    Only replies with content are handed on, because some strategies give up on a round in which
    one site failed.

    Args:
        strategy: keeps its moments from round to round.
        number: of the round, from 1.
        before: the model, by name.
        grid: reaches the sites.
        seed: decides with the number which sites are drawn, so that a round that is taken up
            again after a crash asks the same ones.

    Returns:
        The new model: names, order, shapes and types as before.

    Raises:
        PlanError: the strategy failed, or made no finite model.
    """
    name = type(strategy).__name__
    record = ArrayRecord({key: Array(array) for key, array in before.items()})
    try:
        with _DRAWING:  # Flower draws with Python's one generator
            kept = random.getstate()
            random.seed(f"{seed}/{number}")
            messages = list(strategy.configure_train(number, record, ConfigRecord(), grid))
            random.setstate(kept)
        replies = [item for item in grid.send_and_receive(messages) if not item.has_error()]
        after, _ = strategy.aggregate_train(number, replies)
        if after is None:
            raise PlanError(f"Flower's {name} makes no model of {len(replies)} answers")
        moved = {
            key: after[key].numpy().reshape(array.shape).astype(array.dtype)
            for key, array in before.items()
        }
    except FedtwinError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise PlanError(f"Flower's {name} failed in round {number}: {reason}") from error
    if not all(np.isfinite(array).all() for array in moved.values()):
        raise PlanError(
            f"Flower's {name} made a model with numbers that are not finite in round {number}: "
            "smaller steps may help"
        )
    return moved


def make_strategy(plan: StudyPlan, blobs: BlobStore) -> Strategy:
    """The strategy that a plan names, tried on made-up answers of a quorum.

    Raises:
        PlanError: such a strategy, or such an option, cannot be had.
    """
    wish = read_wish(plan)
    _rehearse(_build(plan, wish), plan, wish, blobs)
    return _build(plan, wish)


def _build(plan: StudyPlan, wish: StrategyWish) -> Strategy:
    known = sorted(set(strategies.__all__) - {"Strategy", "Result"})
    if wish.name not in known:
        raise PlanError(f"Flower has no strategy '{wish.name}'; it has: {', '.join(known)}")
    kind = getattr(strategies, wish.name)
    usual: dict[str, Any] = {
        "fraction_evaluate": 0.0,
        "min_train_nodes": plan.sites.quorum,
        "min_available_nodes": plan.sites.quorum,
        "num_sampled_clients": plan.sites.quorum,
    }
    takes = inspect.signature(kind.__init__).parameters
    options = {name: value for name, value in usual.items() if name in takes} | wish.options
    if wish.inner is not None:
        options["strategy"] = _build(plan, wish.inner)
    try:
        return kind(**options)  # type: ignore[no-any-return]
    except (TypeError, ValueError) as error:
        raise PlanError(f"Flower's {wish.name} does not take these options: {error}") from error


def _rehearse(strategy: Strategy, plan: StudyPlan, wish: StrategyWish, blobs: BlobStore) -> None:
    """Two rounds on made-up answers, so that a mistake in the options shows before a study opens.

    Raises:
        PlanError: the strategy cannot make a model from the answers of a quorum.
    """
    sites = [f"site-{number}" for number in range(plan.sites.quorum)]
    metrics: dict[str, FieldValue] = {WEIGHT: 100.0, **dict.fromkeys(wish.metrics, 1.0)}

    def send(kind: str, contents: Mapping[str, pb.Content]) -> Mapping[str, pb.Answer]:
        del kind
        answers = {}
        for number, site in enumerate(sorted(contents), start=1):
            arrays = {"a": np.full(3, 0.1 * number), "b": np.full((2, 2), -0.1, np.float32)}
            payload = Payload(arrays={"arrays": arrays}, metrics={"metrics": metrics})
            answers[site] = pb.Answer(content=make_content(payload, blobs))
        return answers

    model: Mapping[str, Numbers] = {"a": np.zeros(3), "b": np.zeros((2, 2), np.float32)}
    grid = LinkGrid(sites, send, blobs, wish.metrics)
    for number in (1, 2):
        model = run_round(strategy, number, model, grid, "rehearsal")


def remember(strategy: Strategy) -> dict[str, dict[str, Numbers]]:
    """What a strategy carries from round to round: its named arrays, and its numbers."""
    memory: dict[str, dict[str, Numbers]] = {}
    for path, part in _parts(strategy):
        numbers = {}
        for name, value in vars(part).items():
            if name in _NOT_KEPT:
                continue
            if isinstance(value, dict) and value and _all_arrays(value.values()):
                kept = {str(key): np.asarray(array) for key, array in value.items()}
                memory[f"{path}dict:{name}"] = kept
            elif isinstance(value, list) and value and _all_arrays(value):
                memory[f"{path}list:{name}"] = {str(key): item for key, item in enumerate(value)}
            elif isinstance(value, float):
                numbers[name] = np.array(value)
        if numbers:
            memory[f"{path}numbers:"] = numbers
    return memory


def recall(strategy: Strategy, memory: Payload) -> None:
    """Give a strategy back what `remember` took from it."""
    for path, part in _parts(strategy):
        for label, arrays in memory.arrays.items():
            form, _, name = label.removeprefix(path).partition(":")
            if not label.startswith(path) or form not in {"dict", "list", "numbers"}:
                continue
            if form == "numbers":
                for key, array in arrays.items():
                    setattr(part, key, float(array))
                continue
            kept = {key: np.array(array) for key, array in arrays.items()}
            setattr(part, name, kept if form == "dict" else list(kept.values()))


def _parts(strategy: Strategy) -> Iterator[tuple[str, Strategy]]:
    """A strategy, and the one that it wraps."""
    yield "", strategy
    inner = vars(strategy).get("strategy")
    if isinstance(inner, Strategy):
        yield "inner/", inner


def _all_arrays(values: Iterable[object]) -> bool:
    return all(isinstance(value, np.ndarray) for value in values)

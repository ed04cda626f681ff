"""What the coordinator believes of an answer: nothing, until it is held against the plan.

In this order: the records are those of such an answer and no others; the arrays are those the
study exchanges (names, types, shapes); every number is finite; the norm stays within what the
site's patients can contribute; the weight is the cohort count that the site itself reported. A bad
answer is that site's failure, never the study's.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, prod
from typing import TypeVar

from fedtwin_protocol.blobs import BlobStore
from fedtwin_protocol.content import content_heads, distance, measure, ref_of
from fedtwin_protocol.errors import WireError
from fedtwin_protocol.parameters import BUILT_IN_FAMILIES
from fedtwin_protocol.payload import FieldValue, Payload, unpack
from fedtwin_protocol.study import StudyPlan
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_protocol.votes import VOTE
from fedtwin_server.bounds import (
    COUNT_SLACK,
    longest_move,
    longest_norm,
    most_patients,
    site_noise_sd,
)
from fedtwin_server.exchange import Admit

T = TypeVar("T")

WEIGHT = "num-examples"
COUNT = "cohort-count"
TABLE = "hold-out-table"
LARGEST_COUNT = 1e9
# Parameters in float32 are rounded at the site, to 6e-8 of their size.
ROUNDING = 1e-4


@dataclass(frozen=True, kw_only=True, slots=True)
class ArraySpec:
    """An array that a study exchanges."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of values."""
        return prod(self.shape)


def largest_norm(plan: StudyPlan, values: int, reported_count: float) -> float:
    """How long a site's clipped, noised sum can be, given the cohort it reported; see `bounds`."""
    patients = most_patients(plan, reported_count)
    return longest_norm(values, patients, plan.privacy.clipping_norm, site_noise_sd(plan))


def largest_model_norm(
    plan: StudyPlan, values: int, reported_count: float, current_norm: float
) -> float:
    """How long a site's new parameters can be, given the model it started from.

    Args:
        plan: clipping norm C, noise multiplier s, learning rate, steps of a round.
        values: numbers in the model, d.
        reported_count: the site's noised cohort count.
        current_norm: of the model that the round started from.

    Returns:
        ten times the current norm and one more (room for a family that a site installed, whose
        steps are not bounded by the plan), plus what the noised steps of a round can add.
    """
    training, privacy = plan.training, plan.privacy
    batch = max(1.0, reported_count * privacy.sampling_rate)
    step = training.learning_rate * largest_norm(plan, values, reported_count) / batch
    return 10 * (current_norm + 1) + training.local_steps * step


def admit_updates(
    plan: StudyPlan,
    parameters: pb.Content,
    expected: Sequence[ArraySpec],
    metrics: Sequence[str],
    counts: Mapping[str, float],
    blobs: BlobStore,
) -> Admit:
    """The whole judgement of a round's updates.

    Args:
        plan: the study's.
        parameters: that the round starts from.
        expected: arrays of an update.
        metrics: numbers that the rule reads beside the arrays and the weight.
        counts: the noised cohort count that each site reported.
        blobs: where contents lie.
    """
    values = sum(spec.size for spec in expected)
    slack = COUNT_SLACK * plan.privacy.cohort_count_noise
    current: list[float] = []

    async def check_length(content: pb.Content, count: float) -> None:
        if plan.aggregation.rule == "sum":
            bound = largest_norm(plan, values, count)
            await _beside(content, lambda: check_numbers(content, blobs, bound))
            return
        if not current:
            current.append(await _beside(parameters, lambda: measure(parameters, blobs)))
        if plan.model.family in BUILT_IN_FAMILIES:
            bound = longest_move(plan, values, count, current[0])
            await _beside(content, lambda: check_move(content, parameters, blobs, bound))
        else:
            bound = largest_model_norm(plan, values, count, current[0])
            await _beside(content, lambda: check_numbers(content, blobs, bound))

    async def admit(site: str, answer: pb.Answer) -> None:
        content, count = answer.content, counts[site]
        check_records(content, arrays=True)
        check_arrays(content, expected)
        check_weight(content, count, slack)
        check_metrics(content, metrics)
        await check_length(content, count)

    return admit


async def _beside(content: pb.Content, work: Callable[[], T]) -> T:
    """Do the work at once for a small content, and in a thread of its own for a large one."""
    return work() if ref_of(content) is None else await asyncio.to_thread(work)


def check_records(content: pb.Content, *, arrays: bool) -> None:
    """One record of metrics, after one of arrays where the answer has arrays; nothing else.

    A record or a name too many would decide how the answer is read, or stop a strategy.

    Raises:
        WireError: otherwise.
    """
    found = [(record.name, record.kind) for record in content.records]
    wanted = [("metrics", int(pb.Record.METRICS))]
    if arrays:
        wanted.insert(0, ("arrays", int(pb.Record.ARRAYS)))
    if found != wanted:
        raise WireError(f"expected the records {_listed(wanted)}, got {_listed(found[:5])}")
    for record in content.records:
        names = [head.name for head in record.arrays] + [item.name for item in record.fields]
        if len(set(names)) != len(names):
            raise WireError(f"a name in the record '{record.name}' is given twice")
        if bool(record.fields) and record.kind == pb.Record.ARRAYS:
            raise WireError("the record 'arrays' holds something else than arrays")


def check_arrays(content: pb.Content, expected: Sequence[ArraySpec]) -> None:
    """Hold the array table against the study's.

    Raises:
        WireError: names, types or shapes differ.
    """
    heads = content_heads(content)
    found = [(head.name, head.dtype.name, head.shape) for head in heads]
    wanted = [(spec.name, spec.dtype, spec.shape) for spec in expected]
    if found != wanted:
        seen = [(name[:60], dtype, shape) for name, dtype, shape in found[:5]]
        raise WireError(f"expected the arrays {wanted[:5]}, got {len(found)}: {seen}")
    holders = {(record.name, record.kind) for record in content.records if record.arrays}
    if holders != {("arrays", pb.Record.ARRAYS)}:
        raise WireError("expected the arrays in the record 'arrays'")


def check_numbers(content: pb.Content, blobs: BlobStore, bound: float) -> None:
    """Every number finite, and the whole no longer than `bound` (Euclidean norm).

    Raises:
        WireError: otherwise.
    """
    norm = measure(content, blobs)
    if not isfinite(norm):
        raise WireError("the update holds a number that is not finite")
    if norm > bound:
        raise WireError(
            f"the update's norm is {norm:.3g}; this site's patients can make at most {bound:.3g}"
        )


def check_move(content: pb.Content, start: pb.Content, blobs: BlobStore, bound: float) -> None:
    """Every number finite, and the whole no further than `bound` from the round's start.

    Raises:
        WireError: otherwise.
    """
    moved = distance(content, start, blobs)
    if not isfinite(moved):
        raise WireError("the update holds a number that is not finite")
    if moved > bound * (1 + ROUNDING) + ROUNDING:
        raise WireError(
            f"the update moves the model by {moved:.3g}; this site's patients can move it by at "
            f"most {bound:.3g}"
        )


def check_weight(content: pb.Content, reported_count: float, slack: float) -> float:
    """The weight an update is averaged with: within `slack` of the count the site reported.

    Raises:
        WireError: absent, not a number, not positive, or too far off; or another metric is not a
            finite number.
    """
    metrics = _metrics(content)
    weight = _number(metrics, WEIGHT)
    for name in metrics:
        _number(metrics, name)
    if not 0 < weight <= reported_count + slack:
        raise WireError(
            f"the update claims {weight:.6g} patients, but this site reported {reported_count:.0f}"
        )
    return weight


def check_metrics(content: pb.Content, names: Sequence[str]) -> None:
    """The numbers that a rule reads beside the arrays: there, finite and not negative.

    Raises:
        WireError: otherwise.
    """
    for name in names:
        if (value := _number(_metrics(content), name)) < 0:
            raise WireError(f"expected '{name}' to be at least 0, got {value:.6g}")


def check_count(content: pb.Content) -> float:
    """A site's noised cohort count.

    Raises:
        WireError: absent, not finite, or absurd.
    """
    check_records(content, arrays=False)
    count = _number(_metrics(content), COUNT)
    if not 0 < count <= LARGEST_COUNT:
        raise WireError(f"the cohort count {count:.6g} cannot be one")
    return count


def check_vote(content: pb.Content) -> float:
    """A site's noised vote.

    Raises:
        WireError: absent, not finite, absurd, or with something beside it.
    """
    check_records(content, arrays=False)
    if set(_metrics(content)) != {VOTE}:
        raise WireError(f"expected the one number '{VOTE}' among the metrics")
    vote = _number(_metrics(content), VOTE)
    if abs(vote) > LARGEST_COUNT:
        raise WireError(f"the vote {vote:.6g} cannot be one")
    return vote


def check_table(content: pb.Content, plan: StudyPlan) -> list[float]:
    """A site's hold-out table: bins x 2 noised counts, row by row.

    Raises:
        WireError: another length, or numbers that cannot be noised counts.
    """
    check_records(content, arrays=False)
    table = _metrics(content).get(TABLE)
    cells = plan.evaluation.bins * 2
    if not isinstance(table, list) or len(table) != cells:
        raise WireError(f"expected a hold-out table of {cells} numbers")
    numbers = [
        float(cell)
        for cell in table
        if isinstance(cell, float | int) and not isinstance(cell, bool)
    ]
    if len(numbers) != cells or not all(
        isfinite(number) and abs(number) <= LARGEST_COUNT for number in numbers
    ):
        raise WireError("the hold-out table holds something that is not a noised count")
    return numbers


def _metrics(content: pb.Content) -> Mapping[str, FieldValue]:
    values_only = [record for record in content.records if record.kind != pb.Record.ARRAYS]
    payload: Payload = unpack(values_only, b"")
    return payload.metrics.get("metrics", {})


def _number(metrics: Mapping[str, FieldValue], name: str) -> float:
    value = metrics.get(name)
    if isinstance(value, bool) or not isinstance(value, float | int) or not isfinite(value):
        raise WireError(f"expected a finite number '{name[:60]}' among the metrics")
    return float(value)


def _listed(records: Sequence[tuple[str, int]]) -> str:
    """Records by name and kind, in words."""
    kinds = {value: name.lower() for name, value in pb.Record.Kind.items()}
    return (
        ", ".join(f"'{name[:60]}' of {kinds.get(kind, kind)}" for name, kind in records) or "none"
    )

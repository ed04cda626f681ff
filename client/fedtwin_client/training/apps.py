"""What a training worker runs: something that answers tasks of one study."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from fedtwin_protocol.payload import Array, Payload


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskInput:
    """A task as the worker sees it.

    Attributes:
        kind: train, evaluate or query.cohort.
        round_number: from 1; 0 before the first round.
        payload: the global model and the strategy's settings.
        reported_count: the noised cohort count that this site reported; none before it did.
    """

    kind: str
    round_number: int
    payload: Payload
    reported_count: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SumPart:
    """A site's exact part of a secure sum; it never leaves the worker as it is.

    Attributes:
        exact: the sum over the site's patients, (values,).
        largest: most that one patient moves it by (Euclidean norm).
        noise_multiplier: noise sd in the sum over all sites, in units of `largest`.
    """

    exact: Array
    largest: float
    noise_multiplier: float


class SummingApp(Protocol):
    """Answers the tasks of a study in mode `secure`."""

    def part(self, task: TaskInput) -> SumPart:
        """This site's part of the sum that the task asks for."""


class TrainingApp(Protocol):
    """Answers the tasks of one study."""

    def answer(self, task: TaskInput) -> Payload:
        """The content of the answer; everything in it may leave the site."""

    def cohort_sizes(self) -> tuple[int, int]:
        """True numbers of training and held-out patients; they never leave the site."""

    def local_report(self, parameters: Mapping[str, Array]) -> dict[str, Any]:
        """How a model does on this site's patients; it never leaves the site."""

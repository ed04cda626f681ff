"""What a model foretells of some patients: the numbers, what they are, and what must be said."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fedtwin_protocol.card import ModelCard
from fedtwin_protocol.errors import ReleaseError
from fedtwin_protocol.study_patients import LARGEST_VALUE, Endpoint
from fedtwin_protocol.transforms import backward
from fedtwin_twins.families import predicted

Floats = NDArray[np.float64]
Kind = Literal["probability", "value", "count"]
KINDS: Final[Mapping[str, Kind]] = {
    "event": "probability",
    "value_above": "probability",
    "time_to_event": "probability",
    "value": "value",
    "count": "count",
}
"""What is foretold, by the kind of endpoint."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """Numbers with what must be said about them; use it where an array is expected.

    Attributes:
        values: one for each patient, (patients,): the probability of the endpoint by the horizon,
            the expected value in `unit` (of a population study or of a root or logarithm its
            median), or the expected count; NaN where the contract excludes the patient.
        kind: which of the three.
        unit: UCUM; "1" for probabilities and counts.
        card: the model's card.
        warnings: sentences about these patients.
        days: for a time to event, where the intervals end, in days after the index date,
            (intervals,); empty otherwise.
        risk_over_time: the probability that the event has happened by each of `days`, (patients,
            intervals); no columns otherwise. Its last column is `values`.
        central_90: of a population study, the interval that holds nine in ten such patients of a
            hospital that nothing is known of, (patients, 2); no columns otherwise.
    """

    values: Floats
    kind: Kind
    unit: str
    card: ModelCard
    warnings: tuple[str, ...]
    days: tuple[int, ...] = ()
    risk_over_time: Floats
    central_90: Floats

    @property
    def probability(self) -> Floats:
        """Of the endpoint, (patients,).

        Raises:
            ReleaseError: the model foretells something else.
        """
        if self.kind != "probability":
            raise ReleaseError(
                f"{self.card.study} foretells {named(self.kind, self.unit)}, no probability: read "
                "it from 'values'"
            )
        return self.values

    def __repr__(self) -> str:
        lines = [
            f"{self.card.study} version {self.card.version} predicts {_shown(self.values)} "
            f"({named(self.kind, self.unit)})"
        ]
        if self.days:
            ends = ", ".join(f"{end}" for end in self.days)
            lines.append(f"risk by day {ends}: {_shown(self.risk_over_time)}")
        if self.central_90.size:
            lines.append(f"nine in ten lie within {_shown(self.central_90)}")
        return "\n  ".join((*lines, *self.warnings))

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.values, dtype=dtype, copy=True if copy is None else copy)

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[float]:
        return iter(self.values.tolist())

    def __getitem__(self, index: int) -> float:
        return float(self.values[index])


def named(kind: Kind, unit: str) -> str:
    """What is foretold, in a few words."""
    if kind == "probability":
        return "a probability"
    return f"a value in {unit}" if kind == "value" else "an expected count"


def foretold(endpoint: Endpoint) -> str:
    """What a model of an endpoint foretells, in a few words with the unit and the horizon."""
    text = f"{named(KINDS[endpoint.kind], endpoint.unit)} within {endpoint.horizon_days} days"
    if not endpoint.interval_days:
        return text
    return f"{text}, and by day {', '.join(str(end) for end in endpoint.interval_days)}"


def in_own_unit(endpoint: Endpoint, family: str, scores: Floats) -> Floats:
    """What scores mean, a value in the endpoint's unit and not the plan's scaled one, (patients,).

    Args:
        endpoint: of the plan.
        family: a built-in one.
        scores: (patients,).
    """
    means = predicted(family, scores)
    if endpoint.kind != "value":
        return means
    return backward(endpoint.transform, means * endpoint.scale + endpoint.center)


def beyond_the_learned(endpoint: Endpoint, scores: Floats) -> list[str]:
    """Sentences about values and counts beyond those that the model was taught with."""
    if endpoint.kind == "value":
        beyond = np.abs(scores) > LARGEST_VALUE
    elif endpoint.kind == "count":
        beyond = scores > np.log(endpoint.most)
    else:
        return []
    if not beyond.any():
        return []
    return [
        f"what is foretold for {int(beyond.sum())} of {len(scores)} patients lies beyond what the "
        f"model was taught, {endpoint.bounds_in_words}"
    ]


def _shown(numbers: Floats) -> str:
    return np.array2string(numbers, precision=3, threshold=20, separator=", ").replace("\n", "")

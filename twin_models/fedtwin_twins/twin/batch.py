"""Many patients at once, as padded tensors: the only form in which equations see patients.

Every time is in hours from the patient's own origin; every amount and covariate in the unit that
the model states. All tensors are float64 (marks: bool, places: int64). Empty slots stand behind
the filled ones: a dose of amount 0 at time infinity, an observation that is not `present`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Doses:
    """What goes in, each tensor of shape (patients, doses), ascending in time.

    Attributes:
        time: h; infinity in empty slots.
        amount: in the model's unit of amount; 0 in empty slots.
        duration: h, of an infusion or another input of constant rate; 0: all at once.
        route: place in the model's `routes`.
        interval: h; above 0: this dose stands for all earlier ones of a steady state at this
            interval, the last of them at `time`.
    """

    time: Tensor
    amount: Tensor
    duration: Tensor
    route: Tensor
    interval: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Traits:
    """What is known of the patients, constant between changes.

    Attributes:
        values: by covariate's name, each (patients, spans), in the model's units.
        starts: h, (patients, spans), when each span begins, ascending; the first is -infinity, an
            empty one infinity. The rule by which records became spans (the last one carried
            forward, the next one carried backward, a line) has been applied.
        occasions: (patients, spans), the place of the dosing occasion, from 0.
    """

    values: Mapping[str, Tensor]
    starts: Tensor
    occasions: Tensor

    @property
    def spans(self) -> int:
        """How many spans there is room for."""
        return int(self.starts.shape[1])


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Patients whose future or past is asked for."""

    doses: Doses
    traits: Traits

    @property
    def patients(self) -> int:
        """How many."""
        return int(self.doses.time.shape[0])

    def repeated(self, times: int) -> "Batch":
        """Every patient `times` times in a row: one row for each draw, or for each schedule."""
        return self._each(lambda tensor: tensor.repeat_interleave(times, dim=0))

    def where(self, chosen: Tensor) -> "Batch":
        """Some of the patients, by place or mark."""
        return self._each(lambda tensor: tensor[chosen])

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        doses = Doses(**{one.name: change(getattr(self.doses, one.name)) for one in fields(Doses)})
        traits = Traits(
            values={name: change(value) for name, value in self.traits.values.items()},
            starts=change(self.traits.starts),
            occasions=change(self.traits.occasions),
        )
        return Batch(doses=doses, traits=traits)


@dataclass(frozen=True, kw_only=True, slots=True)
class Observed:
    """What was measured, each tensor of shape (patients, observations).

    Attributes:
        time: h; 0 in empty slots.
        value: in the observable's unit; the limit of quantification where `below`.
        kind: place in the model's `observables`.
        present: whether the slot is filled.
        below: the value is known only to lie below the limit of quantification.
    """

    time: Tensor
    value: Tensor
    kind: Tensor
    present: Tensor
    below: Tensor

    def where(self, chosen: Tensor) -> "Observed":
        """Some of the patients, by place or mark."""
        return Observed(**{one.name: getattr(self, one.name)[chosen] for one in fields(Observed)})


def constant_traits(values: Mapping[str, Tensor]) -> Traits:
    """Covariates that never change, each (patients,), in one span and one occasion."""
    first = next(iter(values.values()), torch.zeros(1, dtype=torch.float64))
    shape = (first.shape[0], 1)
    return Traits(
        values={name: value.to(torch.float64)[:, None] for name, value in values.items()},
        starts=torch.full(shape, -torch.inf, dtype=torch.float64),
        occasions=torch.zeros(shape, dtype=torch.int64),
    )

"""A whole twin model in closed form: one compartment, first-order input, two random effects.

A double with the real interface: trials are tried with it, and patients can be counted by hand.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedtwin_twins.twin.batch import Batch
from fedtwin_twins.twin.model import CarryRule, CovariateRange, Observable, Parameter, Source
from fedtwin_twins.twin.residuals import ResidualError

_SOURCE = Source(citation="made up for tests")


@dataclass(frozen=True, kw_only=True)
class OneCompartment:
    """Clearance grows with weight and with the gene; doses in mg by mouth, levels in mg/L."""

    name: str
    clearance: float = 5.0
    volume: float = 50.0
    absorption: float = 1.0
    gene_factor: float = 1.0
    sd: float = 0.3
    error: float = 0.1
    version: str = "1"
    carry_rule: CarryRule = "last_forward"
    routes: Sequence[str] = ("oral",)
    amount_unit: str = "mg"
    effects: Sequence[str] = ("clearance", "volume")
    occasion_effects: Sequence[str] = ()

    def dose_unit(self, route: str) -> str:
        del route
        return self.amount_unit

    @property
    def parameters(self) -> Sequence[Parameter]:
        values = {"clearance": ("L/h", self.clearance), "volume": ("L", self.volume)}
        return [
            Parameter(name=name, unit=unit, typical=value, source=_SOURCE)
            for name, (unit, value) in values.items()
        ]

    @property
    def covariates(self) -> Sequence[CovariateRange]:
        return [
            CovariateRange(name="weight", unit="kg", hard=(20, 250), soft=(40, 150)),
            CovariateRange(name="expresser", unit="1", hard=(0, 1), soft=(0, 1), default=0.0),
        ]

    @property
    def observables(self) -> Sequence[Observable]:
        error = ResidualError(convention="proportional", proportional=self.error, at_zero=0.01)
        return [Observable(name="concentration", code="", unit="mg/L", error=error)]

    def prior(self, occasions: int) -> Tensor:
        return torch.eye(2, dtype=torch.float64) * self.sd**2

    def individual(self, batch: Batch, effects: Tensor) -> Mapping[str, Tensor]:
        weight, gene = batch.traits.values["weight"], batch.traits.values["expresser"]
        size = (weight / 70.0) ** 0.75 * (1 + (self.gene_factor - 1) * gene)
        return {
            "clearance": self.clearance * size * effects[:, :1].exp(),
            "volume": self.volume * weight / 70.0 * effects[:, 1:2].exp(),
        }

    def predict(
        self, batch: Batch, effects: Tensor, times: Tensor, kinds: Tensor | int = 0
    ) -> Tensor:
        def level(since: Tensor, rate: Tensor) -> Tensor:
            return (-rate * since).exp() - (-self.absorption * since).exp()

        return self._summed(batch, effects, times, level)

    def exposure(self, batch: Batch, effects: Tensor, times: Tensor, kind: int = 0) -> Tensor:
        def area(since: Tensor, rate: Tensor) -> Tensor:
            slow = (1 - (-rate * since).exp()) / rate
            return slow - (1 - (-self.absorption * since).exp()) / self.absorption

        return self._summed(batch, effects, times, area)

    def _summed(
        self,
        batch: Batch,
        effects: Tensor,
        times: Tensor,
        shape: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        found = self.individual(batch, effects)
        clearance, volume = found["clearance"][:, :1], found["volume"][:, :1]
        rate = (clearance / volume)[..., None]
        since = times[:, :, None] - batch.doses.time[:, None, :]
        given = (since > 0) * batch.doses.amount[:, None, :]
        scale = self.absorption / (self.absorption - rate)
        total = (given * shape(since.clamp(min=0.0), rate) * scale).sum(dim=2)
        return total / volume


MODELS = {
    "made-up-truth": OneCompartment(name="made-up-truth", gene_factor=2.0),
    "made-up-dosing": OneCompartment(
        name="made-up-dosing", clearance=6.0, volume=60.0, gene_factor=1.6
    ),
}


def find_model(name: str) -> OneCompartment:
    """By name, as a registry of models does."""
    return MODELS[name]

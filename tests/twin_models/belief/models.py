"""Small models by hand for the tests of beliefs: one and two compartments, as sums of exponentials.

They know nothing of the engines that the product uses, so that a belief is proved apart from them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from fedtwin_twins.twin.batch import Batch, Doses, Observed, Traits, constant_traits
from fedtwin_twins.twin.model import CovariateRange, Observable, Parameter
from fedtwin_twins.twin.residuals import ResidualError

SHARED = Path(__file__).parents[4] / "shared"
CASES = SHARED / "cases" / "pharmacology"
F64 = torch.float64

Terms = Callable[[Tensor], Sequence[tuple[Tensor, Tensor]]]
"""Effects (patients, effects) to the (coefficient, rate) pairs of a unit dose, each (patients,)."""


def one_compartment(clearance: Tensor, volume: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(1.0 / volume, clearance / volume)]


def one_compartment_oral(
    clearance: Tensor, volume: Tensor, absorption: Tensor
) -> list[tuple[Tensor, Tensor]]:
    rate = clearance / volume
    scale = absorption / (volume * (absorption - rate))
    return [(scale, rate), (-scale, absorption)]


def two_compartments(
    clearance: Tensor, volume: Tensor, between: Tensor, second: Tensor
) -> list[tuple[Tensor, Tensor]]:
    k, k12, k21 = clearance / volume, between / volume, between / second
    total = k + k12 + k21
    root = (total**2 - 4.0 * k * k21).sqrt()
    fast, slow = (total + root) / 2.0, (total - root) / 2.0
    return [
        ((fast - k21) / (volume * (fast - slow)), fast),
        ((k21 - slow) / (volume * (fast - slow)), slow),
    ]


def absorbed(terms: Sequence[tuple[Tensor, Tensor]], rate: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The same after first-order absorption."""
    changed = [(size * rate / (rate - speed), speed) for size, speed in terms]
    return [*changed, (-sum(size for size, _ in changed), rate)]


@dataclass(frozen=True, kw_only=True)
class SmallModel:
    """A linear model whose concentration is a sum of exponentials after every dose."""

    terms: Terms
    omega: Tensor
    error: ResidualError
    lag: Callable[[Tensor], Tensor] | None = None
    effects: Sequence[str] = ("clearance", "volume", "absorption")
    occasion_effects: Sequence[str] = ()
    omega_occasion: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=F64))
    name: str = "small"
    version: str = "1"
    parameters: Sequence[Parameter] = ()
    covariates: Sequence[CovariateRange] = ()
    carry_rule: str = "last_forward"
    routes: Sequence[str] = ("any",)
    amount_unit: str = "mg"

    def dose_unit(self, route: str) -> str:
        del route
        return self.amount_unit

    @property
    def observables(self) -> Sequence[Observable]:
        return (Observable(name="concentration", code="", unit="mg/L", error=self.error),)

    def prior(self, occasions: int) -> Tensor:
        return torch.block_diag(self.omega, *[self.omega_occasion] * occasions)

    def individual(self, batch: Batch, effects: Tensor) -> Mapping[str, Tensor]:
        raise NotImplementedError

    def exposure(self, batch: Batch, effects: Tensor, times: Tensor, kind: int = 0) -> Tensor:
        raise NotImplementedError

    def predict(
        self, batch: Batch, effects: Tensor, times: Tensor, kinds: Tensor | int = 0
    ) -> Tensor:
        doses = batch.doses
        elapsed = times[:, :, None] - doses.time[:, None, :]
        own = effects[:, : len(self.effects)]
        if self.lag is not None:
            elapsed = elapsed - self.lag(own)[:, None, None]
        given = elapsed > 0.0
        elapsed = torch.where(given, elapsed, 0.0)
        ended = (elapsed - doses.duration[:, None, :]).clamp(min=0.0)
        infused = (doses.duration > 0.0)[:, None, :]
        duration = torch.where(infused, doses.duration[:, None, :], 1.0)
        total = torch.zeros_like(elapsed)
        for coefficient, speed in self.terms(own):
            size, rate = coefficient[:, None, None], speed[:, None, None]
            wave = size * (-rate * elapsed).exp()
            if bool(infused.any()):
                flow = size / rate * ((-rate * ended).exp() - (-rate * elapsed).exp()) / duration
                wave = torch.where(infused, flow, wave)
            total = total + wave
        return (torch.where(given, total, 0.0) * doses.amount[:, None, :]).sum(dim=2)


def run001(omega: float = 0.2) -> SmallModel:
    """The one-compartment oral model of mapbayr's validation run001 (case M01)."""
    return SmallModel(
        terms=lambda e: one_compartment_oral(
            4.0 * e[:, 0].exp(), 70.0 * e[:, 1].exp(), e[:, 2].exp()
        ),
        omega=omega * torch.eye(3, dtype=F64),
        error=ResidualError(convention="proportional", proportional=0.05**0.5, at_zero=0.05**0.5),
    )


def batch_of(*patients: Sequence[tuple[float, ...]]) -> Batch:
    """Patients without covariates, each a list of doses (time, amount) or (…, duration)."""
    most = max(len(doses) for doses in patients)
    filled = [
        [(*dose, 0.0)[:3] for dose in doses] + [(torch.inf, 0.0, 0.0)] * (most - len(doses))
        for doses in patients
    ]
    table = torch.tensor(filled, dtype=F64)
    places = torch.zeros(table.shape[:2], dtype=torch.int64)
    return Batch(
        doses=Doses(
            time=table[:, :, 0],
            amount=table[:, :, 1],
            duration=table[:, :, 2],
            route=places,
            interval=torch.zeros(table.shape[:2], dtype=F64),
        ),
        traits=constant_traits({"any": torch.ones(len(patients), dtype=F64)}),
    )


def observed_of(
    *patients: Sequence[tuple[float, float]], below: Sequence[Sequence[int]] = ()
) -> Observed:
    """Patients' measurements (time, value); `below`: the places of those under the limit."""
    most = max((len(levels) for levels in patients), default=0)
    shape = (len(patients), most)
    time, value = torch.zeros(shape, dtype=F64), torch.zeros(shape, dtype=F64)
    present, marks = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    for row, levels in enumerate(patients):
        for place, (when, level) in enumerate(levels):
            time[row, place], value[row, place], present[row, place] = when, level, True
        for place in below[row] if below else ():
            marks[row, place] = True
    return Observed(
        time=time,
        value=value,
        kind=torch.zeros(shape, dtype=torch.int64),
        present=present,
        below=marks,
    )


class Varying(SmallModel):
    """Absorbed fractions that differ between occasions, as the occasion of each dose says."""

    def predict(
        self, batch: Batch, effects: Tensor, times: Tensor, kinds: Tensor | int = 0
    ) -> Tensor:
        traits, count = batch.traits, len(self.effects)
        started = traits.starts[:, None, :] <= batch.doses.time[:, :, None]
        span = started.sum(dim=2) - 1
        occasion = traits.occasions.gather(1, span.clamp(min=0))
        known = torch.cat([effects[:, count:], torch.zeros(len(effects), 99, dtype=F64)], dim=1)
        factor = known.gather(1, occasion).exp()
        doses = replace(batch.doses, amount=batch.doses.amount * factor)
        return super().predict(replace(batch, doses=doses), effects, times)


def varying(spread: float = 0.3) -> Varying:
    """`run001` with a bioavailability that varies between occasions."""
    one = run001()
    return Varying(
        terms=one.terms,
        omega=one.omega,
        error=one.error,
        occasion_effects=("bioavailability",),
        omega_occasion=torch.tensor([[spread**2]], dtype=F64),
    )


def with_occasions(batch: Batch, starts: Sequence[float]) -> Batch:
    """The same patients with occasions that begin at these hours; the first began long ago."""
    count = batch.patients
    begins = torch.tensor([-torch.inf, *starts], dtype=F64).repeat(count, 1)
    traits = Traits(
        values={"any": torch.ones(begins.shape, dtype=F64)},
        starts=begins,
        occasions=torch.arange(begins.shape[1]).repeat(count, 1),
    )
    return replace(batch, traits=traits)


def simulated(
    model: SmallModel, batch: Batch, times: Sequence[float], seed: int
) -> tuple[Observed, Tensor]:
    """Measurements of patients drawn from the prior, and the effects that they were drawn with."""
    generator = torch.Generator().manual_seed(seed)
    occasions = int(batch.traits.occasions.max()) + 1 if model.occasion_effects else 0
    factor = torch.linalg.cholesky(model.prior(occasions))
    normal = torch.randn(batch.patients, len(factor), dtype=F64, generator=generator)
    effects = normal @ factor.mT
    at = torch.tensor(times, dtype=F64).repeat(batch.patients, 1)
    truth = model.predict(batch, effects, at)
    noise = torch.randn(truth.shape, dtype=F64, generator=generator)
    values = model.error.scaled(truth) + model.error.deviation(truth) * noise
    if model.error.convention == "on_logarithm":
        values = values.exp()
    marks = torch.ones(at.shape, dtype=torch.bool)
    observed = Observed(
        time=at,
        value=values,
        kind=torch.zeros(at.shape, dtype=torch.int64),
        present=marks,
        below=~marks,
    )
    return observed, effects

"""Models and patients for the benchmarks of beliefs, on the engine that the product uses."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from fedtwin_twins.belief.likelihood import Evidence
from fedtwin_twins.kinetics.disposition import Disposition
from fedtwin_twins.kinetics.events import Route
from fedtwin_twins.kinetics.linear import LinearKinetics
from fedtwin_twins.twin.batch import Batch, Doses, Observed, constant_traits
from fedtwin_twins.twin.residuals import ResidualError

F64 = torch.float64
TYPICAL = (5.0, 50.0, 8.0, 80.0, 1.2)
SPREADS = (0.3, 0.3, 0.3, 0.3, 0.5)
LEVELS_H = (1.0, 4.0, 11.5, 60.0, 119.0)
ERROR = ResidualError(convention="sum_of_variances", additive=0.05, proportional=0.15)

Parameters = Callable[[Batch, Tensor], Mapping[str, Tensor]]
"""Patients and effects to parameters by name, each (patients, spans) or (patients, 1)."""


def predicting(parameters: Parameters) -> Callable[[Batch, Tensor, Tensor, Tensor], Tensor]:
    """Concentrations of one or two compartments, with whatever way in has been named."""

    def predict(batch: Batch, effects: Tensor, times: Tensor, kinds: Tensor) -> Tensor:
        del kinds
        known = parameters(batch, effects)
        exchanges = ((known["between"], known["second"]),) if "between" in known else ()
        route = Route(
            stages=1 if "absorption" in known else 0,
            rate=known.get("absorption"),
            lag=known.get("lag"),
        )
        kinetics = LinearKinetics(
            disposition=Disposition(
                clearance=known["clearance"], volume=known["volume"], exchanges=exchanges
            ),
            routes=(route,),
            starts=batch.traits.starts if batch.traits.spans > 1 else None,
        )
        return kinetics.concentrations(batch.doses, times)

    return predict


def doses_of(rows: Sequence[tuple[float, ...]], patients: int = 1) -> Doses:
    """The same doses (time, amount) or (time, amount, duration) for everybody."""
    table = torch.tensor([(*row, 0.0)[:3] for row in rows], dtype=F64)
    time, amount, duration = (column.repeat(patients, 1) for column in table.unbind(dim=1))
    return Doses(
        time=time,
        amount=amount,
        duration=duration,
        route=torch.zeros(time.shape, dtype=torch.int64),
        interval=torch.zeros_like(time),
    )


def observed_of(times: Tensor, values: Tensor) -> Observed:
    """Measurements of one observable, both (patients, observations), every slot filled."""
    marks = torch.ones(times.shape, dtype=torch.bool)
    return Observed(
        time=times,
        value=values,
        kind=torch.zeros(times.shape, dtype=torch.int64),
        present=marks,
        below=~marks,
    )


def two_compartments_oral(batch: Batch, effects: Tensor) -> Mapping[str, Tensor]:
    """Five parameters, all of them log-normal."""
    del batch
    typical = torch.tensor(TYPICAL, dtype=F64)
    names = ("clearance", "volume", "between", "second", "absorption")
    return dict(zip(names, (typical * effects.exp()).split(1, dim=1), strict=True))


def drawn_patients(patients: int, seed: int) -> tuple[Evidence, Tensor]:
    """Patients drawn from the prior, 10 doses every 12 h and 5 levels; and their true effects."""
    generator = torch.Generator().manual_seed(seed)
    predict = predicting(two_compartments_oral)
    batch = Batch(
        doses=doses_of([(12.0 * place, 100.0) for place in range(10)], patients),
        traits=constant_traits({"any": torch.ones(patients, dtype=F64)}),
    )
    spreads = torch.tensor(SPREADS, dtype=F64)
    effects = torch.randn(patients, len(spreads), dtype=F64, generator=generator) * spreads
    times = torch.tensor(LEVELS_H, dtype=F64).repeat(patients, 1)
    truth = predict(batch, effects, times, torch.zeros(()))
    noise = torch.randn(truth.shape, dtype=F64, generator=generator)
    evidence = Evidence(
        predict=predict,
        covariance=torch.diag(spreads**2),
        errors=(ERROR,),
        batch=batch,
        observed=observed_of(times, truth + ERROR.deviation(truth) * noise),
    )
    return evidence, effects

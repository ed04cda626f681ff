"""The hour of the next level, against what is known without computing it."""

import torch

from fedtwin_twins.advice.assessment import Horizon, Outlook
from fedtwin_twins.advice.regimen import Regimen
from fedtwin_twins.advice.sampling import most_informative
from fedtwin_twins.advice.targets import Target
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.tabulate import tabulate

from .patients import GOTI, goti_patient, mg

REGIMEN = Regimen(amount=mg(1000), interval_h=12.0, route="intravenous", duration_h=1.0)
HOURS = [1.0, 2.0, 4.0, 8.0, 12.0]


def outlook(clearance: float, volume: float) -> Outlook:
    generator = torch.Generator().manual_seed(1)
    normal = torch.randn(400, 3, generator=generator, dtype=torch.float64)
    scale = torch.tensor([clearance, volume, 0.0], dtype=torch.float64)
    return Outlook(
        model=GOTI,
        batch=tabulate([goti_patient()], GOTI.intake).batch,
        effects=normal * scale,
        weights=torch.ones(400, dtype=torch.float64),
    )


def best(one: Outlook, kind: str) -> tuple[float, float]:
    target = Target(kind=kind, observable="concentration", low=Quantity(1, unit(kind)))  # type: ignore[arg-type]
    found = most_informative(one, REGIMEN, target, Horizon(start_h=0.0, judged_h=12.0), HOURS)
    return found.hour, found.explained


def unit(kind: str) -> str:
    return "mg/L.h" if "area" in kind else "mg/L"


def test_a_late_level_tells_of_clearance_and_an_early_one_of_volume() -> None:
    assert best(outlook(0.6, 0.001), "area_24h")[0] >= 8.0
    assert best(outlook(0.001, 0.6), "peak")[0] <= 2.0


def test_the_less_is_unknown_beside_the_assays_error_the_less_a_level_explains() -> None:
    parts = [best(outlook(spread, 0.001), "area_24h")[1] for spread in (0.3, 0.15, 0.05)]
    assert parts == sorted(parts, reverse=True)
    assert 0.0 < parts[-1] < parts[0] < 1.0


def test_a_certain_target_leaves_nothing_to_explain() -> None:
    assert best(outlook(0.0, 0.0), "area_24h") == (1.0, 0.0)

"""X01: relations that hold for the levels of every linear card, whatever its numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fedtwin_twins.pharmacology.card_model import CardModel
from fedtwin_twins.pharmacology.library import load_card, shipped
from fedtwin_twins.twin.covariate_rows import Recorded
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.schedule import Dose

from .published import hours, patients, row

KNOWN: Mapping[str, Recorded] = {
    "age": Quantity(50, "a"),
    "body_weight": Quantity(75, "kg"),
    "height": Quantity(172, "cm"),
    "female": "female",
    "creatinine": Quantity(1.1, "mg/dL"),
    "creatinine_clearance": Quantity(80, "mL/min"),
    "haematocrit": Quantity(33, "%"),
    "cyp3a5_expresser": "expresser",
    "immediate_release": "immediate_release",
    "cystic_fibrosis": "present",
    "cyp2c9_star2_alleles": "one",
    "cyp2c9_star3_alleles": "none",
    "vkorc1_1639a_alleles": "one",
    "dialysis": "none",
    "cisplatin": "with",
    "ritonavir": "taken",
}
LINEAR = [
    name
    for name, card in shipped().items()
    if any(one.output == "concentration" for one in card.observables)
]
MIDDLING = {"tacrolimus": 4.0, "warfarin": 5.0, "busulfan": 50.0, "amlodipine": 5.0}


class Levels:
    """A card's concentrations under doses, with effects that are not 0."""

    def __init__(self, name: str) -> None:
        self.twin = CardModel(load_card(name))
        outputs = [one.output for one in self.twin.card.observables]
        self.kind = outputs.index("concentration")
        route = self.twin.card.routes[0]
        amount = MIDDLING.get(self.twin.card.drug.name, 500.0)
        self.dose = Dose(time=hours(0), amount=Quantity(amount, route.unit), route=route.name)
        self.infused = route.input == "direct"
        count = len(self.twin.effects)
        self.effects = torch.linspace(-0.2, 0.3, count, dtype=torch.float64)[None]

    def at(self, doses: Sequence[Dose], *times: float) -> list[float]:
        batch = patients(self.twin, (doses, KNOWN)).batch
        found: Tensor = self.twin.predict(batch, self.effects, row(*times), self.kind)
        return found[0].tolist()

    def area(self, doses: Sequence[Dose], *times: float) -> list[float]:
        batch = patients(self.twin, (doses, KNOWN)).batch
        return self.twin.exposure(batch, self.effects, row(*times), self.kind)[0].tolist()

    def parameter(self, name: str) -> float:
        batch = patients(self.twin, ([self.dose], KNOWN)).batch
        return self.twin.individual(batch, self.effects)[name][0, 0].item()


@pytest.fixture(params=LINEAR)
def levels(request: pytest.FixtureRequest) -> Levels:
    return Levels(request.param)


TIMES = (0.5, 3.0, 7.9, 20.0, 47.0)


def test_every_card_of_levels_is_here() -> None:
    assert set(shipped()) - set(LINEAR) == {"warfarin_xia_2024", "glucose_hovorka_2004"}


def test_two_regimens_add_up(levels: Levels) -> None:
    other = replace(levels.dose, time=hours(5))
    both = levels.at([levels.dose, other], *TIMES)
    if levels.twin.name.startswith("busulfan"):
        pytest.skip("its clearance falls with the hours since the first dose")
    apart = [
        one + two
        for one, two in zip(
            levels.at([levels.dose], *TIMES), levels.at([other], *TIMES), strict=True
        )
    ]
    assert both == pytest.approx(apart, rel=1e-9, abs=1e-12)


def test_a_dose_in_two_parts_at_one_time(levels: Levels) -> None:
    half = replace(levels.dose, amount=Quantity(levels.dose.amount.value / 2, "mg"))
    assert levels.at([half, half], *TIMES) == pytest.approx(
        levels.at([levels.dose], *TIMES), rel=1e-9, abs=1e-12
    )


def test_everything_later_gives_the_same_later(levels: Levels) -> None:
    later = replace(levels.dose, time=hours(13.7))
    shifted = levels.at([later], *(time + 13.7 for time in TIMES))
    assert shifted == pytest.approx(levels.at([levels.dose], *TIMES), rel=1e-7, abs=1e-12)


def test_steady_state_is_what_many_doses_lead_to(levels: Levels) -> None:
    repeated = replace(levels.dose, interval=hours(24))
    steady = replace(repeated, steady_state=True)
    many = replace(repeated, time=hours(-24.0 * 200), additional=200)
    assert levels.at([steady], 1.0, 6.0, 23.0) == pytest.approx(
        levels.at([many], 1.0, 6.0, 23.0), rel=1e-6
    )


def test_a_short_infusion_is_a_bolus(levels: Levels) -> None:
    if not levels.infused:
        pytest.skip("by mouth")
    short = replace(levels.dose, duration=Quantity(1e-6, "h"))
    assert levels.at([short], *TIMES) == pytest.approx(
        levels.at([levels.dose], *TIMES), rel=1e-4, abs=1e-9
    )


def test_the_whole_area_is_dose_over_clearance(levels: Levels) -> None:
    """At steady state over one interval, with the dose's scale and bioavailability."""
    route = levels.twin.card.routes[0]
    steady = replace(levels.dose, interval=hours(24), steady_state=True)
    begin, end = levels.area([steady], 0.0, 24.0)
    given = levels.dose.amount.value * route.dose_scale
    if route.bioavailability is not None:
        given *= levels.parameter(route.bioavailability)
    unit = levels.twin.observables[levels.kind].unit
    scale = Quantity(1.0, "mg/L").to(unit)
    clearance = levels.parameter("clearance")
    if levels.twin.name.startswith("busulfan"):
        clearance *= 0.919  # a steady state lies long after the first dose
    assert end - begin == pytest.approx(scale * given / clearance, rel=1e-8)


def test_no_dose_no_level(levels: Levels) -> None:
    assert levels.at([], *TIMES) == [0.0] * len(TIMES)


def test_a_dose_at_an_asked_time_counts_after_it(levels: Levels) -> None:
    assert levels.at([levels.dose], 0.0) == [0.0]


def test_no_effect_is_the_population_and_the_gradient_is_finite(levels: Levels) -> None:
    batch = patients(levels.twin, ([levels.dose], KNOWN)).batch
    effects = torch.zeros_like(levels.effects, requires_grad=True)
    found = levels.twin.predict(batch, effects, row(*TIMES), levels.kind)
    assert bool((found >= 0).all())
    if effects.numel():
        found.sum().backward()  # type: ignore[no-untyped-call]
        assert effects.grad is not None
        assert bool(effects.grad.isfinite().all())
        assert bool((effects.grad != 0).any())

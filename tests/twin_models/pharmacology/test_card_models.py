"""A card as a twin model: parameters from covariates and effects, units, occasions, outputs."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtwin_twins.dosing import targets_of
from fedtwin_twins.pharmacology.card_model import CardModel
from fedtwin_twins.pharmacology.equations import RELATIONS
from fedtwin_twins.pharmacology.library import load_card, shipped
from fedtwin_twins.twin.batch import Batch, Doses, constant_traits
from fedtwin_twins.twin.covariate_rows import Recorded
from fedtwin_twins.twin.covariates import CovariateRecord
from fedtwin_twins.twin.model import TwinModel
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Refusal
from fedtwin_twins.twin.schedule import Dose, Schedule
from fedtwin_twins.twin.tabulate import Patient, tabulate

BUSULFAN = CardModel(load_card("busulfan_mccune_2014"))
WOMAN: Mapping[str, Recorded] = {
    "age": Quantity(40, "a"),
    "body_weight": Quantity(62, "kg"),
    "height": Quantity(165, "cm"),
    "female": "female",
}
QUARTERS = Dose(
    time=Quantity(0, "h"),
    amount=Quantity(50, "mg"),
    route="intravenous",
    duration=Quantity(2, "h"),
    interval=Quantity(6, "h"),
    additional=15,
)


def no_doses() -> Doses:
    nothing = torch.zeros((1, 0), dtype=torch.float64)
    return Doses(
        time=nothing, amount=nothing, duration=nothing, route=nothing.long(), interval=nothing
    )


def batch_of(twin: CardModel, known: Mapping[str, Recorded], *doses: Dose) -> Batch:
    patient = Patient(schedule=Schedule(doses), covariates=known)
    return tabulate([patient], twin.intake).batch


def zeros(twin: CardModel, occasions: int = 0) -> torch.Tensor:
    width = len(twin.effects) + occasions * len(twin.occasion_effects)
    return torch.zeros((1, width), dtype=torch.float64)


def row(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


@pytest.mark.parametrize("name", shipped())
def test_every_card_is_a_twin_model(name: str) -> None:
    twin: TwinModel = CardModel(load_card(name))
    assert twin.name == name
    assert twin.version.startswith(f"{twin.card.version}+")
    assert twin.prior(2).shape == (len(twin.effects) + 2 * len(twin.occasion_effects),) * 2
    prior = twin.prior(1)
    assert torch.equal(prior, prior.T)
    assert not len(prior) or float(torch.linalg.eigvalsh(prior)[0]) > 0
    assert all(one.source.citation and one.unit for one in twin.parameters)
    assert {one.name for one in twin.parameters} >= {*twin.effects, *twin.occasion_effects}


@pytest.mark.parametrize("name", shipped())
def test_open_questions_are_cautions(name: str) -> None:
    twin = CardModel(load_card(name))
    card = twin.card
    assert [one.remedy for one in twin.cautions] == [*card.open_questions, *card.unchecked]


@pytest.mark.parametrize("name", shipped())
def test_every_code_dose_and_target_says_how_far_it_was_checked(name: str) -> None:
    card = load_card(name)
    said = [card.drug.atc_verified, card.drug.rxnorm_verified]
    said += [one.doses_verified for one in card.routes]
    said += [one.code_verified for one in card.observables if one.code]
    said += [one.verified for one in card.targets]
    assert None not in said
    assert len(card.unchecked) == said.count("memory")
    assert all(text.endswith("from memory, not checked against the source.")
               for text in card.unchecked)  # fmt: skip
    targets = [one.source for one in targets_of(card)]
    for one, source in zip(card.targets, targets, strict=True):
        assert ("not checked" in source) == (one.verified == "memory")


def test_a_card_that_does_not_say_so_is_not_taken_for_checked() -> None:
    card = load_card("tacrolimus_woillard_2011")
    silent = card.model_copy(update={"drug": card.drug.model_copy(update={"atc_verified": None})})
    told = "The ATC code L04AD02: the card does not say how far it was checked."
    assert silent.unchecked == (told, *card.unchecked)


RELATED = [
    ("power", "c", {"reference": 35.0, "exponent": -1.14}, 30.0, (30 / 35) ** -1.14),
    ("proportional", "c", {"reference": 70.0}, 35.0, 0.5),
    ("linear", "c", {"reference": 71.0, "slope": -0.00571}, 81.0, 1 - 0.0571),
    (
        "hinged_linear",
        "c",
        {"reference": 40.0, "slope_below": 0.00475, "slope_above": -0.00566},
        20.0,
        0.905,
    ),
    (
        "hinged_linear",
        "c",
        {"reference": 40.0, "slope_below": 0.00475, "slope_above": -0.00566},
        70.0,
        0.8302,
    ),
    ("exponential", "c", {"reference": 40.0, "slope": -0.01}, 70.0, math.exp(-0.3)),
    ("fold", "c", {"factor": 2.0}, 1.0, 2.0),
    ("fold", "c", {"factor": 2.0}, 0.0, 1.0),
    ("maturation", "c", {"half": 45.7, "hill": 2.3}, 45.7, 0.5),
    ("by_value", "c", {"reference": 1.17, "0": 1.17, "1": 2.82}, 1.0, 2.82 / 1.17),
    ("from_hour", "c", {"36": 0.919, "6": 0.932}, 5.9, 1.0),
    ("from_hour", "c", {"36": 0.919, "6": 0.932}, 6.0, 0.932),
    ("from_hour", "c", {"36": 0.919, "6": 0.932}, 40.0, 0.919),
    ("approach", "c", {"final": 3.0, "half_time": 10.0}, -1.0, 1.0),
    ("approach", "c", {"final": 3.0, "half_time": 10.0}, 10.0, 2.02),  # the step that begins there
    ("approach", "c", {"final": 3.0, "half_time": 10.0}, math.inf, 3.0),
    ("weighted_sum", "", {"reference": 0.348, "c": 0.174}, 2.0, 1.0),
]


@pytest.mark.parametrize(("equation", "name", "by", "value", "expected"), RELATED)
def test_relations(
    equation: str, name: str, by: Mapping[str, float], value: float, expected: float
) -> None:
    found = RELATIONS[equation].factor(name, {"c": torch.tensor([[value]])}, by)
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_every_relation_is_tested() -> None:
    assert {name for name, *_ in RELATED} == set(RELATIONS)


def test_a_value_that_is_not_listed_is_no_number() -> None:
    by = {"reference": 1.0, "0": 1.0}
    assert RELATIONS["by_value"].factor("c", {"c": torch.tensor([[3.0]])}, by).isnan().item()


def test_busulfan_by_hand() -> None:
    """McCune's equations, written out."""
    lean = 9_270 * 62 / (8_780 + 244 * 62 / 1.65**2)
    fat = 62 - lean
    maturation = 1 / (1 + ((40 * 52.1775 + 40) / 45.7) ** -2.3)
    batch = batch_of(BUSULFAN, WOMAN, QUARTERS)
    own = BUSULFAN.individual(batch, zeros(BUSULFAN))
    assert own["clearance"][0, 0].item() == pytest.approx(
        11.4 * ((lean + 0.509 * fat) / 70) ** 0.75 * maturation
    )
    assert own["central_volume"][0, 0].item() == pytest.approx(
        13.9 * (lean + 0.203 * fat) / 70 * 1.07
    )


def test_a_parameter_that_changes_by_itself_changes_the_area() -> None:
    """The area of an hour long after the change is dose rate / clearance, by the factor less."""
    steady = Dose(
        time=Quantity(10, "h"),
        amount=Quantity(600, "mg"),
        route="intravenous",
        duration=Quantity(600, "h"),
    )
    batch = batch_of(BUSULFAN, WOMAN, steady)
    clearance = BUSULFAN.individual(batch, zeros(BUSULFAN))["clearance"][0, 0].item()
    level = BUSULFAN.predict(batch, zeros(BUSULFAN), row(600.0)).item()
    assert level == pytest.approx(1_000 * 1.0 / (clearance * 0.919), rel=1e-6)
    before = BUSULFAN.predict(batch, zeros(BUSULFAN), row(15.9, 16.5))[0]
    assert before[0].item() < level
    areas = BUSULFAN.exposure(batch, zeros(BUSULFAN), row(500.0, 600.0))[0]
    assert (areas[1] - areas[0]).item() == pytest.approx(100 * level, rel=1e-4)


def test_an_effect_multiplies_and_an_occasion_has_its_own() -> None:
    batch = batch_of(BUSULFAN, WOMAN, QUARTERS)
    assert batch.traits.occasions.tolist() == [[0, 1, 2, 3, 4]]
    nothing = BUSULFAN.individual(batch, zeros(BUSULFAN, 3))
    effects = zeros(BUSULFAN, 3)
    effects[0, 0] = math.log(2.0)  # clearance
    effects[0, 4 + 2 * 1] = math.log(1.5)  # clearance on the second occasion
    own = BUSULFAN.individual(batch, effects)
    ratio = (own["clearance"] / nothing["clearance"])[0].tolist()
    assert ratio == pytest.approx([2, 3, 2, 2, 2])
    for name in ("central_volume", "peripheral_volume"):
        assert torch.equal(own[name], nothing[name])


def test_a_wrong_occasion_changes_nothing() -> None:
    batch = batch_of(BUSULFAN, WOMAN, QUARTERS)
    effects = zeros(BUSULFAN, 5)
    effects[0, 4 + 2 * 4 :] = 0.7
    times = row(*np.arange(0.5, 96.0, 5.0))
    assert torch.equal(
        BUSULFAN.predict(batch, effects, times), BUSULFAN.predict(batch, zeros(BUSULFAN), times)
    )


def test_the_same_patient_in_other_units() -> None:
    """Nothing but the units of the input changes."""
    grams = replace(QUARTERS, amount=Quantity(0.05, "g"), duration=Quantity(120, "min"))
    known = {
        "age": Quantity(480, "mo"),
        "body_weight": Quantity(62_000, "g"),
        "height": Quantity(1.65, "m"),
        "female": Quantity(1, "1"),
    }
    times = row(1.0, 30.0, 95.0)
    expected = BUSULFAN.predict(batch_of(BUSULFAN, WOMAN, QUARTERS), zeros(BUSULFAN), times)
    found = BUSULFAN.predict(batch_of(BUSULFAN, known, grams), zeros(BUSULFAN), times)
    assert found[0].tolist() == pytest.approx(expected[0].tolist(), rel=1e-12)


@settings(max_examples=20)
@given(st.floats(0.5, 2.0), st.floats(-0.5, 0.5))
def test_twice_the_dose_is_twice_the_level(times_more: float, effect: float) -> None:
    twin = CardModel(load_card("vancomycin_goti_2018"))
    known = {
        "age": Quantity(60, "a"),
        "body_weight": Quantity(80, "kg"),
        "creatinine": Quantity(1.0, "mg/dL"),
        "female": "male",
    }
    effects = zeros(twin) + effect
    levels = [
        twin.predict(
            batch_of(twin, known, replace(QUARTERS, amount=Quantity(amount, "mg"))),
            effects,
            row(1.0, 7.0, 50.0),
        )
        for amount in (500.0, 500.0 * times_more)
    ]
    assert (levels[1] / levels[0])[0].tolist() == pytest.approx([times_more] * 3, rel=1e-9)


def test_a_missing_covariate_is_a_refusal_by_name() -> None:
    traits = constant_traits({"age": torch.tensor([40.0])})
    batch = Batch(doses=no_doses(), traits=traits)
    with pytest.raises(Refusal) as caught:
        BUSULFAN.individual(batch, zeros(BUSULFAN))
    assert "female" in {problem.field for problem in caught.value.problems}


def test_covariates_that_change_give_levels_that_change() -> None:
    twin = CardModel(load_card("vancomycin_thomson_2009"))
    known: dict[str, Recorded] = {
        "age": Quantity(60, "a"),
        "body_weight": Quantity(80, "kg"),
        "female": "male",
        "creatinine": [
            CovariateRecord(time=Quantity(hour, "h"), value=Quantity(value, "mg/dL"))
            for hour, value in ((0, 1.0), (24, 2.0))
        ],
    }
    batch = batch_of(twin, known, QUARTERS)
    clearance = twin.individual(batch, zeros(twin))["clearance"][0]
    assert clearance[1] < clearance[0]
    constant = batch_of(twin, {**known, "creatinine": Quantity(1.0, "mg/dL")}, QUARTERS)
    times = row(12.0, 24.0, 48.0)
    found = twin.predict(batch, zeros(twin), times)[0]
    same = twin.predict(constant, zeros(twin), times)[0]
    assert found[:2].tolist() == pytest.approx(same[:2].tolist(), rel=1e-12)
    assert found[2] > same[2]


def test_several_observables_in_one_question() -> None:
    twin = CardModel(load_card("amlodipine_mukherjee_2018"))
    dose = Dose(
        time=Quantity(0, "h"),
        amount=Quantity(5, "mg"),
        route="oral",
        interval=Quantity(24, "h"),
        additional=13,
    )
    batch = batch_of(twin, {"body_weight": Quantity(82.2, "kg")}, dose)
    times = row(100.0, 100.0)
    mixed = twin.predict(batch, zeros(twin), times, torch.tensor([[0, 1]]))[0]
    single = [twin.predict(batch, zeros(twin), times, kind)[0, 0] for kind in (0, 1)]
    assert mixed.tolist() == [float(one) for one in single]


def test_a_batch_answers_as_its_patients_do() -> None:
    other = {**WOMAN, "body_weight": Quantity(90, "kg"), "female": "male"}
    patients = [
        Patient(schedule=Schedule([QUARTERS]), covariates=known) for known in (WOMAN, other)
    ]
    both = tabulate(patients, BUSULFAN.intake).batch
    times = row(3.0, 40.0)
    together = BUSULFAN.predict(both, zeros(BUSULFAN).repeat(2, 1), times.repeat(2, 1))
    for place, known in enumerate((WOMAN, other)):
        alone = BUSULFAN.predict(batch_of(BUSULFAN, known, QUARTERS), zeros(BUSULFAN), times)
        assert together[place].tolist() == pytest.approx(alone[0].tolist(), rel=1e-12)

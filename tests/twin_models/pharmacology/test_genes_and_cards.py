"""What genes do to a model and what its card says are one and the same number."""

import pytest
import torch

from fedtwin_twins.pharmacology.card_model import CardModel
from fedtwin_twins.pharmacology.gene_effects import built_in_gene_effects, gene_effects
from fedtwin_twins.pharmacology.gene_results import GeneResult, gene_result
from fedtwin_twins.pharmacology.library import load_card, shipped
from fedtwin_twins.twin.batch import Batch, Doses, constant_traits
from fedtwin_twins.twin.covariate_rows import Recorded
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.tabulate import Patient, tabulate

REFERENCE: dict[str, dict[str, Recorded]] = {
    "tacrolimus_woillard_2011": {
        "haematocrit": Quantity(35, "%"),
        "cyp3a5_expresser": "nonexpresser",
        "immediate_release": "immediate_release",
    },
    "tacrolimus_monchaud_2012": {
        "age": Quantity(50, "a"),
        "body_weight": Quantity(60, "kg"),
        "cystic_fibrosis": "absent",
        "cyp3a5_expresser": "nonexpresser",
    },
    "warfarin_hamberg_2010": {
        "age": Quantity(71, "a"),
        "cyp2c9_star2_alleles": "none",
        "cyp2c9_star3_alleles": "none",
        "vkorc1_1639a_alleles": "none",
    },
    "warfarin_xia_2024": {
        "age": Quantity(71, "a"),
        "body_weight": Quantity(60, "kg"),
        "amiodarone": "not_taken",
        "cyp2c9_star2_alleles": "none",
        "cyp2c9_star3_alleles": "none",
        "vkorc1_1639a_alleles": "none",
    },
}


def parameters(model: str, changed: dict[str, Recorded]) -> dict[str, float]:
    twin = CardModel(load_card(model))
    known = {**REFERENCE[model], **changed}
    batch = tabulate([Patient(covariates=known)], twin.intake).batch
    effects = torch.zeros((1, len(twin.effects)), dtype=torch.float64)
    return {name: value.item() for name, value in twin.individual(batch, effects).items()}


@pytest.mark.parametrize(
    ("model", "results"),
    [
        ("tacrolimus_woillard_2011", [gene_result("CYP3A5", diplotype="*1/*3")]),
        ("tacrolimus_monchaud_2012", [gene_result("CYP3A5", diplotype="*1/*1")]),
        ("tacrolimus_monchaud_2012", [gene_result("CYP3A5", diplotype="*3/*3")]),
        ("warfarin_hamberg_2010", [gene_result("CYP2C9", diplotype="*2/*3")]),
        ("warfarin_xia_2024", [gene_result("CYP2C9", diplotype="*1/*3")]),
    ],
    ids=str,
)
def test_a_genotype_moves_the_card_as_the_table_says(model: str, results: list[GeneResult]) -> None:
    found = gene_effects(model.partition("_")[0], results, model=model)
    taken = {name: Quantity(value, "1") for name, value in found.covariates.items()}
    before, after = parameters(model, {}), parameters(model, taken)
    assert found.factors
    for name, factor in found.factors.items():
        assert after[name] / before[name] == pytest.approx(factor, rel=1e-12)


def test_every_effect_on_a_shipped_card_names_its_parameters_and_covariates() -> None:
    groups = built_in_gene_effects().groups
    met = [(model, rows) for (_, model), rows in groups.items() if model in shipped()]
    assert {model for model, _ in met} == set(REFERENCE)
    for model, rows in met:
        card = load_card(model)
        for (_, parameter), found in rows.items():
            assert parameter in {one.name for one in card.parameters}
            named = {row.text("covariate") for row in found} - {""}
            assert named <= {one.name for one in card.covariates}


def test_alleles_that_are_not_given_are_counted_from_those_that_are() -> None:
    """Traits that were made by hand work like those of a table."""
    twin = CardModel(load_card("warfarin_hamberg_2010"))
    known = {"age": 71.0, "cyp2c9_star2_alleles": 0.0, "cyp2c9_star3_alleles": 1.0}
    known["vkorc1_1639a_alleles"] = 2.0
    traits = constant_traits({name: torch.tensor([value]) for name, value in known.items()})
    empty = torch.zeros((1, 0), dtype=torch.float64)
    doses = Doses(time=empty, amount=empty, duration=empty, route=empty.long(), interval=empty)
    effects = torch.zeros((1, 3), dtype=torch.float64)
    own = twin.individual(Batch(doses=doses, traits=traits), effects)
    assert own["clearance"].item() == pytest.approx(0.174 + 0.0422)
    assert own["half_maximal_concentration"].item() == pytest.approx(1.92)

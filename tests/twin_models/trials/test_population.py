"""Virtual patients: covariates, conditions, adherence, dropout."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from fedtwin_twins.trials.adherence import Adherence
from fedtwin_twins.trials.covariates import Rows
from fedtwin_twins.trials.dropout import Dropout
from fedtwin_twins.trials.population import Population, VirtualPatients, draw_population
from fedtwin_twins.trials.streams import Streams

WEIGHT = {
    **{"name": "weight", "unit": "kg", "distribution": "normal", "mean": 75.0, "sd": 15.0},
    **{"lowest": 40.0, "highest": 120.0, "source": "made up"},
}
AGE = {
    **{"name": "age", "unit": "a", "distribution": "lognormal", "mean": 50.0, "sd": 15.0},
    **{"lowest": 18.0, "highest": 95.0, "source": "made up"},
}
SEX = {"name": "woman", "unit": "1", "distribution": "yes_no", "mean": 0.4, "source": "made up"}


def population(**changes: Any) -> Population:
    start: dict[str, Any] = {
        "ancestry": {"EUR": 0.6, "EAS": 0.4},
        "covariates": [WEIGHT, AGE, SEX],
        "genes": ["CYP3A5", "CYP2D6"],
    }
    return Population.model_validate(start | changes)


def streams(count: int = 40_000, first: int = 0) -> Streams:
    return Streams(seed=2, replicates=(0,), first=first, count=count)


def test_marginals_and_copula() -> None:
    pair = {"first": "weight", "second": "age", "value": -0.5}
    found = draw_population(population(correlations=[pair]), streams()).covariates
    weight, age = found["weight"], found["age"]
    assert weight.min() >= 40
    assert weight.max() <= 120
    assert weight.mean() == pytest.approx(75, rel=0.02)
    assert age.mean() == pytest.approx(50, rel=0.02)
    assert found["woman"].mean() == pytest.approx(0.4, abs=0.01)
    assert np.corrcoef(weight, np.log(age))[0, 1] == pytest.approx(-0.5, abs=0.03)


def test_the_cut_throws_nothing_away_and_piles_nothing_up() -> None:
    narrow = WEIGHT | {"lowest": 60.0, "highest": 90.0}
    found = draw_population(population(covariates=[narrow]), streams()).covariates["weight"]
    assert len(np.unique(found)) > 39_000
    assert np.percentile(found, 50) == pytest.approx(75, abs=0.3)


def test_ancestries_may_have_their_own_mean() -> None:
    other = WEIGHT | {"by_ancestry": {"EAS": {"mean": 60.0, "sd": 10.0}}}
    found = draw_population(population(covariates=[other]), streams())
    asian = found.ancestry == found.ancestries.index("EAS")
    assert asian.mean() == pytest.approx(0.4, abs=0.01)
    assert found.covariates["weight"][asian].mean() == pytest.approx(60, rel=0.02)


def _facts(patients: VirtualPatients, place: int) -> list[Any]:
    return [
        patients.ancestry[place],
        *(column[place] for column in patients.covariates.values()),
        *(found.diplotype()[place] for found in patients.genotypes.values()),
        *(flags[place] for flags in patients.conditions.values()),
    ]


def test_a_patient_is_the_same_in_a_larger_population_and_in_a_part_of_it() -> None:
    ill = {"name": "ill", "prevalence": 0.3, "covariate_factors": {"weight": 0.9}, "source": "xyz"}
    plan = population(conditions=[ill])
    small, large = draw_population(plan, streams(50)), draw_population(plan, streams(1001))
    part = draw_population(plan, streams(11, first=39))
    for place in range(50):
        assert _facts(small, place) == _facts(large, place)
    for place in range(11):
        assert _facts(part, place) == _facts(large, place + 39)


def test_rows_are_drawn_whole() -> None:
    values = {"weight": np.array([50.0, 60.0, 90.0]), "age": np.array([5.0, 6.0, 9.0])}
    rows = Rows(values=values, units={"weight": "kg", "age": "a"})
    file = {"file": "rows.csv", "units": rows.units, "source": "a register"}
    found = draw_population(population(covariates=[], rows=file), streams(3000), rows)
    assert (found.covariates["weight"] == 10 * found.covariates["age"]).all()
    counts = np.unique(found.covariates["age"], return_counts=True)[1]
    assert counts == pytest.approx(1000, rel=0.1)


def test_a_condition_follows_its_slope_and_changes_covariates() -> None:
    ill = {
        **{"name": "ill", "prevalence": 0.2, "source": "made up"},
        "slopes": [{"covariate": "age", "centre": 50.0, "log_odds_per_unit": 0.1}],
        "covariate_factors": {"weight": 0.5},
    }
    plain = draw_population(population(), streams())
    found = draw_population(population(conditions=[ill]), streams())
    has, age = found.conditions["ill"], found.covariates["age"]
    near = np.abs(age - 50) < 1
    assert has[near].mean() == pytest.approx(0.2, abs=0.03)
    older = np.abs(age - 60) < 1
    assert has[older].mean() == pytest.approx(0.25 * np.e / (1 + 0.25 * np.e), abs=0.03)
    factor = found.covariates["weight"] / plain.covariates["weight"]
    assert (factor == np.where(has, 0.5, 1.0)).all()


def test_gene_covariates_are_numbers_for_models() -> None:
    by_type = {
        **{"name": "expresser", "gene": "CYP3A5"},
        "by_phenotype": {
            "Normal Metabolizer": 1, "Intermediate Metabolizer": 1, "Poor Metabolizer": 0
        },
    }  # fmt: skip
    by_allele = {"name": "copies", "gene": "CYP3A5", "by_allele": {"*3": 1.0, "*6": 0.5}}
    found = draw_population(population(gene_covariates=[by_type, by_allele]), streams(2000))
    expresser, each = found.covariates["expresser"], found.genotypes["CYP3A5"].diplotype()
    assert [bool(one) for one in expresser] == ["*1" in name.split("/") for name in each]
    three = np.array([name.split("/").count("*3") for name in each])
    six = np.array([name.split("/").count("*6") for name in each])
    assert (found.covariates["copies"] == three + 0.5 * six).all()
    gap = by_type | {"by_phenotype": {"Normal Metabolizer": 1}}
    with pytest.raises(ValueError, match="no number for CYP3A5 'Intermediate Metabolizer'"):
        draw_population(population(gene_covariates=[gap]), streams(2000))


@pytest.mark.parametrize("persistence", [0.0, 0.6])
def test_adherence_is_a_markov_chain_in_its_stationary_state(persistence: float) -> None:
    taken = Adherence(taken_share=0.8, persistence=persistence).taken(20, streams(20_000))
    assert taken.mean(axis=0) == pytest.approx(0.8, abs=0.015)
    before, after = taken[:, :-1].ravel(), taken[:, 1:].ravel()
    assert np.corrcoef(before, after)[0, 1] == pytest.approx(persistence, abs=0.02)


def test_full_adherence_takes_every_dose() -> None:
    assert Adherence(taken_share=1.0, between_patients_sd=1.0).taken(9, streams(500)).all()


@pytest.mark.parametrize("shape", [0.5, 1.0, 3.0])
def test_dropout_reaches_its_share_on_its_day(shape: float) -> None:
    days = Dropout(share=0.3, by_day=10.0, shape=shape).days({}, streams())
    assert (days < 10).mean() == pytest.approx(0.3, abs=0.01)
    halfway = 1 - 0.7 ** (0.5**shape)
    assert (days < 5).mean() == pytest.approx(halfway, abs=0.01)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"ancestry": {"EUR": 0.5}}, "ancestry: expected shares with sum 1, found 0.5"),
        ({"covariates": [WEIGHT, WEIGHT]}, "covariates: weight is there twice"),
        ({"covariates": [WEIGHT | {"lowest": 130.0}]}, "weight: expected lowest below highest"),
        ({"covariates": [WEIGHT | {"sd": None}]}, "weight: normal needs sd"),
        ({"covariates": []}, "expected covariates or rows, and not both"),
        ({"genes": ["CYP4F2", "CYP2C19"], "ancestry": {"SAS": 1.0}}, "nothing about CYP4F2 in SAS"),
        (
            {"correlations": [{"first": "weight", "second": "height", "value": 0.5}]},
            "correlations: expected two covariates",
        ),
        (
            {
                "correlations": [
                    {"first": "weight", "second": "age", "value": 0.9},
                    {"first": "age", "second": "woman", "value": 0.9},
                    {"first": "weight", "second": "woman", "value": -0.9},
                ]
            },
            "contradict one another",
        ),
        (
            {"gene_covariates": [{"name": "x", "gene": "CYP2C9", "by_allele": {"*2": 1}}]},
            "x needs CYP2C9 among the genes",
        ),
    ],
)
def test_a_population_that_does_not_add_up_is_refused(
    change: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValidationError, match=sentence):
        population(**change)


def test_a_condition_on_a_covariate_that_is_not_there_is_refused() -> None:
    ill = {"name": "ill", "prevalence": 0.3, "covariate_factors": {"height": 0.9}, "source": "xyz"}
    with pytest.raises(ValueError, match="condition ill: there is no covariate height"):
        draw_population(population(conditions=[ill]), streams(10))

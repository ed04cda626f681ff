"""From genes to parameters: published numbers, assumptions shown as such, and what is not known."""

from datetime import date

import pytest

from fedtwin_twins.pharmacology.gene_effects import (
    FORMAT,
    built_in_gene_effects,
    gene_effects,
    parse_gene_effects,
    what_genes_do,
)
from fedtwin_twins.pharmacology.gene_results import gene_result
from fedtwin_twins.twin.refusals import Refusal

C, T = "rs9923231 reference (C)", "rs9923231 variant (T)"


def test_cyp3a5_expressers_clear_tacrolimus_twice_as_fast() -> None:
    """Woillard 2011, with how few expressers that rests on."""
    model = "tacrolimus_woillard_2011"
    for diplotype, factor in (("*1/*1", 2.0), ("*1/*3", 2.0), ("*3/*3", 1.0)):
        found = gene_effects(
            "tacrolimus", [gene_result("CYP3A5", diplotype=diplotype)], model=model
        )
        assert found.factors == {"clearance": factor}
        assert found.covariates == {"cyp3a5_expresser": factor - 1.0}
    expresser = gene_effects("tacrolimus", [gene_result("CYP3A5", phenotype="IM")], model=model)
    assert "6 expressers of 73" in str(expresser.effects[0])
    other = gene_effects(
        "tacrolimus", [gene_result("CYP3A5", phenotype="IM")], model="tacrolimus_passey_2011"
    )
    assert other.factors == {"clearance": 1.69}


@pytest.mark.parametrize(
    ("cyp2c9", "vkorc1", "clearance", "half_maximal", "counts"),
    [
        ("*1/*1", f"{C}/{C}", 0.348, 4.10, (0, 0, 0)),
        ("*1/*2", f"{C}/{T}", 0.2619, 3.01, (1, 0, 1)),
        ("*1/*3", f"{T}/{T}", 0.2162, 1.92, (0, 1, 2)),
        ("*2/*3", f"{T}/{C}", 0.1301, 3.01, (1, 1, 1)),
        ("*3/*3", f"{T}/{T}", 0.0844, 1.92, (0, 2, 2)),
    ],
)
def test_warfarin_is_the_sum_of_alleles(
    cyp2c9: str,
    vkorc1: str,
    clearance: float,
    half_maximal: float,
    counts: tuple[int, int, int],
) -> None:
    """Hamberg 2010: sums by hand."""
    genes = [gene_result("CYP2C9", diplotype=cyp2c9), gene_result("VKORC1", diplotype=vkorc1)]
    found = gene_effects("warfarin", genes, model="warfarin_hamberg_2010")
    by_parameter = {effect.parameter: effect for effect in found.effects}
    assert by_parameter["clearance"].typical == pytest.approx(clearance)
    assert by_parameter["half_maximal_concentration"].typical == pytest.approx(half_maximal)
    assert found.factors["clearance"] == pytest.approx(clearance / 0.348)
    names = ("cyp2c9_star2_alleles", "cyp2c9_star3_alleles", "vkorc1_1639a_alleles")
    assert tuple(found.covariates[name] for name in names) == counts
    assert found.not_known == ()


def test_an_assumption_says_that_it_is_one() -> None:
    found = gene_effects("fluorouracil", [gene_result("DPYD", activity_score=1.0)])
    (effect,) = found.effects
    assert (effect.factor, effect.basis, effect.interval) == (0.5, "assumption", None)
    assert "assumed" in str(effect)
    none = gene_effects("fluorouracil", [gene_result("DPYD", activity_score=0.0)])
    assert none.effects == ()
    assert "no number for this result" in none.not_known[0]


def test_what_is_not_known_is_listed_and_never_taken_for_normal() -> None:
    model = "warfarin_hamberg_2010"
    strange = gene_effects("warfarin", [gene_result("CYP2C9", diplotype="*1/*8")], model=model)
    assert strange.effects == ()
    assert "never met *8" in strange.not_known[0]
    assert "VKORC1 was not tested" in strange.not_known[1]
    by_name = gene_effects("warfarin", [gene_result("CYP2C9", phenotype="PM")], model=model)
    assert "goes by alleles" in by_name.not_known[0]
    open_one = gene_effects("warfarin", [gene_result("CYP2C9", diplotype="*1/*7")], model=model)
    assert "not the same as normal" in open_one.not_known[0]
    possible = gene_result("CYP3A5", phenotype="Possible Intermediate Metabolizer")
    found = gene_effects("tacrolimus", [possible], model="tacrolimus_woillard_2011")
    assert found.effects == ()
    with pytest.raises(Refusal, match="warfarin_hamberg_2010, warfarin_xia_2024"):
        gene_effects("warfarin", [], model="mine")
    with pytest.raises(Refusal, match="genes have no numbers for this drug"):
        gene_effects("imatinib", [])


def test_effect_and_recommendation_stand_side_by_side() -> None:
    view = what_genes_do(
        "tacrolimus",
        [gene_result("CYP3A5", diplotype="*1/*3")],
        as_of=date(2026, 11, 28),
        model="tacrolimus_woillard_2011",
    )
    assert view.effects.factors == {"clearance": 2.0}
    (said,) = view.recommendations
    assert (said.action, said.starting_dose_factor) == ("increase", (1.5, 2.0))
    assert view.effects.effects[0].source
    assert said.source


def test_every_model_card_gets_what_it_takes() -> None:
    """The covariates are those of the cards, where the cards are."""
    library = pytest.importorskip("fedtwin_twins.pharmacology.library", reason="no cards yet")
    cards = library.shipped()
    table = built_in_gene_effects()
    checked = 0
    for (_, model), group in table.groups.items():
        wanted = {row.text("covariate") for rows in group.values() for row in rows} - {""}
        if wanted and model in cards:
            assert wanted <= {one.name for one in cards[model].covariates}, model
            checked += 1
    assert checked


HEAD = f"# format: {FORMAT}\n# version: 2026-11-01\n# source: a site\n# licence: none\n"
COLUMNS = (
    "drug,model,gene,relation,key,parameter,value,low,high,unit,covariate,covariate_value,basis,"
    "subjects,source,verified,note\n"
)
ROW = "codeine,any,CYP2D6,factor,Poor Metabolizer,morphine,0.1,,,1,,,measured,,a paper,read,\n"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("0.1,,", "0,,", "'value' is 0; expected a number above 0"),
        ("0.1,,", "0.1,0.2,0.3", "16|18 cells|an interval around the value"),
        ("0.1,,,", "0.1,0.05,,", "both ends of an interval"),
        ("0.1,,,", "0.1,0.2,0.3,", "an interval around the value"),
        ("factor", "sum", "'relation' is sum"),
        ("measured", "guessed", "'basis' is guessed"),
        ("Poor Metabolizer", "score", "'key' is score"),
        ("codeine", "codein", "did you mean codeine"),
        (",a paper,", ",,", "'source' is empty"),
        ("1,,,measured", "1,x,y,measured", "'covariate_value' is y"),
    ],
)
def test_a_damaged_table_is_refused(old: str, new: str, says: str) -> None:
    assert parse_gene_effects(HEAD + COLUMNS + ROW, "t.csv").models_of("codeine") == ("any",)
    with pytest.raises(Refusal, match=says):
        parse_gene_effects(HEAD + COLUMNS + ROW.replace(old, new), "t.csv")


def test_a_result_is_there_once_and_relations_are_not_mixed() -> None:
    with pytest.raises(Refusal, match="every result or allele once"):
        parse_gene_effects(HEAD + COLUMNS + ROW + ROW, "t.csv")
    mixed = ROW.replace("factor,Poor Metabolizer", "allele sum,*1")
    with pytest.raises(Refusal, match="factor, as in line 6"):
        parse_gene_effects(HEAD + COLUMNS + ROW + mixed, "t.csv")

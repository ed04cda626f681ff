"""What other drugs do: published factors, and that not known is never no interaction."""

import pytest

from fedtwin_twins.pharmacology.gene_results import gene_result
from fedtwin_twins.pharmacology.interactions import (
    FORMAT,
    built_in_interactions,
    interaction,
    interactions_within,
    parse_interactions,
)
from fedtwin_twins.pharmacology.phenoconversion import under_inhibitor
from fedtwin_twins.twin.refusals import Refusal

AZOLES = ("fluconazole", "itraconazole", "ketoconazole", "posaconazole", "voriconazole")
INDUCERS = ("rifampicin", "carbamazepine", "phenytoin", "St John's wort")
INHIBITORS = (*AZOLES, "amiodarone", "ritonavir", "nirmatrelvir/ritonavir", "clarithromycin")


@pytest.mark.parametrize(
    ("drug", "other", "parameter", "factor"),
    [
        ("tacrolimus", "voriconazole", "apparent clearance", 1 / 4),
        ("tacrolimus", "fluconazole", "apparent clearance", 1 / 2),
        ("tacrolimus", "rifampin", "clearance", 0.053 / 0.036),
        ("tacrolimus", "rifampicin", "bioavailability", 7 / 14),
        ("warfarin", "amiodarone", "half_maximal_concentration", 1 - 0.602),
        ("imatinib", "rifampicin", "apparent clearance", 3.8),
        ("imatinib", "ketoconazole", "apparent clearance", 1 / 1.4),
        ("imatinib", "carbamazepine", "apparent clearance", 1 / (1 - 0.73)),
        ("metformin", "dolutegravir", "apparent clearance", 1 / 1.79),
        ("metformin", "cimetidine", "apparent clearance", 1 / 1.462),
        ("busulfan", "phenytoin", "clearance", 1.15),
        ("amlodipine", "ritonavir", "clearance", 0.6045),
    ],
)
def test_published_factors(drug: str, other: str, parameter: str, factor: float) -> None:
    found = interaction(drug, other)
    changes = {change.parameter: change for change in found.changes}
    assert changes[parameter].factor == pytest.approx(factor, rel=0.02)
    assert changes[parameter].source


def test_intervals_say_of_what_kind_they_are() -> None:
    (change,) = interaction("imatinib", "rifampicin").changes
    assert (change.interval, change.interval_kind) == ((3.5, 4.3), "90 % confidence interval")
    (change,) = interaction("tacrolimus", "voriconazole").changes
    assert change.interval == pytest.approx((1 / 6.1, 1 / 2.7), rel=0.05)
    assert interaction("warfarin", "amiodarone").covariates == ("amiodarone",)


@pytest.mark.parametrize("other", ["itraconazole", "clarithromycin", "nirmatrelvir/ritonavir"])
def test_contraindicated_pairs(other: str) -> None:
    found = interaction("simvastatin", other)
    assert found.action == "contraindicated"
    assert found.changes == ()
    assert found.text


def test_an_unknown_pair_is_not_known() -> None:
    found = interaction("metformin", "voriconazole")
    assert (found.action, found.known, found.verified) == ("not known", False, None)
    assert found.text.startswith("Not known: ")
    assert "not the same as no interaction" in found.text
    with pytest.raises(Refusal, match="nothing is known here of other drugs"):
        interaction("tacrolimus", "zzzz")


@pytest.mark.parametrize("drug", ["tacrolimus", "warfarin", "amlodipine", "simvastatin"])
def test_object_drugs_meet_all_inhibitors_and_inducers(drug: str) -> None:
    unknown = {other for other in (*INHIBITORS, *INDUCERS) if not interaction(drug, other).known}
    assert unknown <= {"amiodarone"}


def test_a_medication_comes_with_the_worst_first_and_the_unknown_last() -> None:
    found = interactions_within(["Simvastatin", "amlodipine", "itraconazole", "metformin"])
    assert len(found) == 12
    assert [one.action for one in found[:3]] == ["contraindicated", "limit", "monitor"]
    assert {one.action for one in found[3:]} == {"not known"}
    assert interactions_within(["warfarin"]) == ()


def test_every_row_is_checked_and_no_sentence_promises_safety() -> None:
    rows = [row for rows in built_in_interactions().pairs.values() for row in rows]
    assert len(rows) > 80
    assert {row.verified() for row in rows} == {"read", "transcription", "memory"}
    assert not [row for row in rows if "no interaction" in row.text("text").lower()]


HEAD = f"# format: {FORMAT}\n# version: 2026-11-01\n# source: a site\n# licence: none\n"
COLUMNS = (
    "drug,other,parameter,factor,low,high,interval_kind,covariate,action,limit,text,source,"
    "verified,note\n"
)
ROW = "codeine,paroxetine,morphine,0.1,0.05,0.2,range,,avoid,,Do not.,a paper,read,\n"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("avoid", "beware", "'action' is beware"),
        ("0.1,0.05", "0,0.05", "a number above 0"),
        ("0.1,0.05", "0.1,0.15", "an interval around the factor"),
        ("range", "", "with its kind"),
        ("morphine", "", "a factor with its parameter"),
        ("Do not.", "", "'text' is empty"),
        ("paroxetine", "paroxetin", "did you mean paroxetine"),
    ],
)
def test_a_damaged_table_is_refused(old: str, new: str, says: str) -> None:
    table = parse_interactions(HEAD + COLUMNS + ROW, "t.csv")
    assert interaction("codeine", "paroxetine", table).text == "Do not."
    with pytest.raises(Refusal, match=says):
        parse_interactions(HEAD + COLUMNS + ROW.replace(old, new), "t.csv")


def test_rows_of_a_pair_agree() -> None:
    other = ROW.replace("morphine", "clearance").replace("avoid", "monitor")
    with pytest.raises(Refusal, match="avoid, as in line 6"):
        parse_interactions(HEAD + COLUMNS + ROW + other, "t.csv")
    with pytest.raises(Refusal, match="every parameter of a pair once"):
        parse_interactions(HEAD + COLUMNS + ROW + ROW, "t.csv")


@pytest.mark.parametrize(
    ("diplotype", "inhibitor", "score", "phenotype"),
    [
        ("*1/*1", "strong", 0.0, "Poor Metabolizer"),
        ("*1/*1", "moderate", 1.0, "Intermediate Metabolizer"),
        ("*1x2/*1", "moderate", 1.5, "Normal Metabolizer"),
        ("*1/*1", "weak", 2.0, "Normal Metabolizer"),
        ("*4/*10", "moderate", 0.125, "Intermediate Metabolizer"),
        ("*4/*4", "moderate", 0.0, "Poor Metabolizer"),
    ],
)
def test_an_inhibitor_lowers_the_score_for_opioids(
    diplotype: str, inhibitor: str, score: float, phenotype: str
) -> None:
    """CPIC opioid guideline 2021: strong 0, moderate half."""
    result = gene_result("CYP2D6", diplotype=diplotype, copy_number=2 + ("x2" in diplotype))
    found = under_inhibitor(result, inhibitor, "codeine")  # type: ignore[arg-type]
    assert (found.activity_score, found.phenotype) == (score, phenotype)


def test_the_rule_is_for_opioids_alone() -> None:
    result = gene_result("CYP2D6", diplotype="*1/*1", copy_number=2)
    with pytest.raises(Refusal, match="no rule has been agreed upon"):
        under_inhibitor(result, "strong", "tamoxifen")
    with pytest.raises(Refusal, match="a score that is known"):
        under_inhibitor(gene_result("CYP2D6", phenotype="NM"), "moderate", "codeine")

"""Answers against CPIC's own tables, row by row.

Source of the expected strengths, factors and limits: CPIC's tables as PharmCAT carried them on
2023-08-08 (github.com/PharmGKB/PharmCAT, commit 76bfe08c, reporter/guidelines/cpic), which CPIC's
log (github.com/cpicpgx/cpic-data, data.tsv, to 2026-02-05) has not changed since, but for
clopidogrel's wording (2023-10-20) and thiopurines. Content CC0; the words below are ours.
"""

from collections.abc import Mapping
from datetime import date

import pytest

from fedtwin_twins.pharmacology.gene_results import GeneResult, gene_result
from fedtwin_twins.pharmacology.recommendations import Recommendation, recommend

TODAY = date(2026, 11, 28)
BEFORE_2026 = date(2024, 3, 1)
SHORT = {
    **{
        key: f"{name} Metabolizer"
        for key, name in {
            "PM": "Poor",
            "IM": "Intermediate",
            "NM": "Normal",
            "RM": "Rapid",
            "UM": "Ultrarapid",
        }.items()
    },
    **{
        f"L{key}": f"Likely {name} Metabolizer"
        for key, name in {"PM": "Poor", "IM": "Intermediate"}.items()
    },
    "possible IM": "Possible Intermediate Metabolizer",
    **{
        key: f"{key} Function"
        for key in ("Normal", "Increased", "Decreased", "Possible Decreased", "Poor")
    },
    "?": "Indeterminate",
}


def answer(
    drug: str, genes: Mapping[str, str | float], indication: str = "", day: date = TODAY
) -> Recommendation:
    """What is said; genes map to a short phenotype, a diplotype or a score."""
    given = [_result(gene, value) for gene, value in genes.items()]
    found = recommend(drug, given, as_of=day, indication=indication or None)
    assert len(found) == 1, [one.indication for one in found]
    return found[0]


def _result(gene: str, value: str | float) -> GeneResult:
    if isinstance(value, float):
        return gene_result(gene, activity_score=value)
    if "/" in value:
        counted = gene != "CYP2D6" or "x" in value or "*5" in value
        return gene_result(gene, diplotype=value, copy_number=None if counted else 2)
    return gene_result(gene, phenotype=SHORT[value])


STANDARD = 1.0
C, D, B, S, A = "CYP2C19", "CYP2D6", "CYP2B6", "SLCO1B1", "ABCG2"
# drug, genes, strength, starting factor (none where the guideline gives none), word of the text.
ONE_GENE = [
    *[(drug, {C: "UM"}, "Optional", 2.0, "Double") for drug in
      ("omeprazole", "lansoprazole", "pantoprazole", "dexlansoprazole")],
    ("omeprazole", {C: "RM"}, "Moderate", STANDARD, "50 to 100 % more"),
    ("omeprazole", {C: "IM"}, "Optional", STANDARD, "half"),
    ("pantoprazole", {C: "LPM"}, "Moderate", STANDARD, "half"),
    ("dexlansoprazole", {C: "PM"}, "Optional", STANDARD, "half"),
    *[(drug, {C: key}, *expected) for drug in ("citalopram", "escitalopram") for key, *expected in [
        ("UM", "Strong", None, "does not depend on CYP2C19"),
        ("RM", "Optional", STANDARD, "higher"),
        ("NM", "Strong", STANDARD, "starting dose"),
        ("IM", "Moderate", STANDARD, "slower"),
        ("LIM", "Moderate", STANDARD, "lower maintenance"),
        ("PM", "Strong", None, "half the usual maintenance"),
    ]],
    ("codeine", {D: "*1/*41"}, "Strong", STANDARD, "label"),
    ("codeine", {D: "*4/*41"}, "Moderate", STANDARD, "other than tramadol"),
    ("codeine", {D: "*1x2/*1"}, "Strong", None, "Avoid codeine"),
    ("codeine", {D: "*1xN/*1"}, "Strong", None, "Avoid codeine"),
    ("codeine", {D: "*4/*4"}, "Strong", None, "Avoid codeine"),
    ("tramadol", {D: 0.75}, "Optional", STANDARD, "other than codeine"),
    ("tramadol", {D: 2.75}, "Strong", None, "Avoid tramadol"),
    ("hydrocodone", {D: 0.0}, "Optional", STANDARD, "label"),
    ("hydrocodone", {D: 2.25}, "Strong", STANDARD, "label"),
    ("hydrocodone", {D: 3.0}, "No recommendation", None, "no recommendation"),
    ("tamoxifen", {D: "*1/*41"}, "Strong", STANDARD, "20 mg"),
    ("tamoxifen", {D: 1.0}, "Optional", None, "aromatase"),
    ("tamoxifen", {D: "*4/*9"}, "Moderate", None, "aromatase"),
    ("tamoxifen", {D: "*4/*5"}, "Strong", None, "40 mg"),
    ("nortriptyline", {D: 0.0}, "Strong", None, "half"),
    ("nortriptyline", {D: "*4/*10"}, "Moderate", 0.75, "quarter"),
    ("nortriptyline", {D: "*1/*4"}, "Optional", 0.75, "quarter"),
    ("nortriptyline", {D: 2.0}, "Strong", STANDARD, "starting dose"),
    ("nortriptyline", {D: "*1x2/*2"}, "Strong", None, "may not work"),
    *[(drug, {S: key}, strength, factor, "")
      for drug in ("lovastatin", "pravastatin", "pitavastatin")
      for key, strength, factor in [("Increased", "Strong", STANDARD), ("Poor", "Moderate", None)]],
    ("simvastatin", {S: "*1/*5"}, "Strong", None, "below 20 mg"),
    ("simvastatin", {S: "*5/*15"}, "Strong", None, "another statin"),
    ("lovastatin", {S: "Possible Decreased"}, "Moderate", None, "at most 20 mg"),
    ("pravastatin", {S: "Decreased"}, "Moderate", STANDARD, "above 40 mg"),
    ("pitavastatin", {S: "Decreased"}, "Moderate", None, "above 1 mg"),
    ("atorvastatin", {S: "*1/*15"}, "Moderate", None, "at most 40 mg"),
    ("atorvastatin", {S: "Poor"}, "Moderate", None, "at most 20 mg"),
    *[(drug, {"DPYD": score}, strength, factor, word) for drug in ("fluorouracil", "capecitabine")
      for score, strength, factor, word in [
          (2.0, "Strong", STANDARD, "label"), (1.5, "Moderate", 0.5, "half"),
          (1.0, "Strong", 0.5, "half"), (0.5, "Strong", None, "strongly reduced"),
          (0.0, "Strong", None, "Avoid")]],
    ("fluorouracil", {"DPYD": "c.2846A>T/c.2846A>T"}, "Strong", 0.5, "less than half"),
    ("capecitabine", {"DPYD": "c.1905+1G>A (*2A)/c.2846A>T"}, "Strong", None, "Avoid"),
    ("tacrolimus", {"CYP3A5": "*1/*3"}, "Strong", 1.5, "0.3 mg/kg"),
    ("tacrolimus", {"CYP3A5": "*3/*6"}, "Strong", STANDARD, "standard"),
    ("atazanavir", {"UGT1A1": "*1/*28"}, "Strong", STANDARD, "jaundice"),
    ("atazanavir", {"UGT1A1": "*28/*28"}, "Strong", None, "another drug"),
]  # fmt: skip
TWO_GENES = [
    *[("sertraline", {C: c, B: b}, *expected) for c, b, *expected in [
        ("NM", "NM", "Strong", STANDARD, "starting dose"),
        ("NM", "UM", "Moderate", STANDARD, "starting dose"),
        ("NM", "IM", "Moderate", STANDARD, "slower"),
        ("NM", "PM", "Optional", None, "quarter less"),
        ("RM", "NM", "Strong", STANDARD, "starting dose"),
        ("UM", "IM", "Moderate", STANDARD, "starting dose"),
        ("UM", "RM", "Optional", STANDARD, "higher"),
        ("RM", "PM", "Optional", STANDARD, "starting dose"),
        ("IM", "NM", "Moderate", STANDARD, "slower"),
        ("LIM", "UM", "Moderate", STANDARD, "starting dose"),
        ("IM", "IM", "Optional", STANDARD, "slower"),
        ("IM", "PM", "Optional", None, "half the usual"),
        ("PM", "IM", "Moderate", None, "half the usual"),
        ("PM", "RM", "Optional", None, "half the usual"),
        ("LPM", "PM", "Optional", None, "CYP2C19 or CYP2B6"),
        ("?", "NM", "Moderate", STANDARD, "gene that is known"),
        ("?", "PM", "Optional", None, "gene that is known"),
    ]],
    ("sertraline", {C: "UM"}, "Strong", STANDARD, "gene that is known"),
    ("sertraline", {C: "IM"}, "Moderate", STANDARD, "slower"),
    ("sertraline", {B: "IM"}, "Optional", STANDARD, "slower"),
    ("sertraline", {B: "UM"}, "Moderate", STANDARD, "gene that is known"),
    *[("amitriptyline", {C: c, D: d}, *expected) for c, d, *expected in [
        ("NM", 0.0, "Strong", None, "half"), ("NM", "*1/*4", "Moderate", 0.75, "quarter"),
        ("NM", "*1/*41", "Strong", STANDARD, "starting"),
        ("NM", 3.0, "Strong", None, "may not work"),
        ("IM", 0.0, "Optional", None, "half"), ("IM", 0.5, "Optional", 0.75, "quarter"),
        ("LIM", 2.0, "Strong", STANDARD, "starting"), ("IM", 4.0, "Optional", None, "Avoid"),
        ("PM", 1.0, "Optional", None, "Avoid"), ("PM", 2.0, "Moderate", None, "half"),
        ("UM", 0.0, "Optional", None, "Avoid"), ("RM", 1.0, "Optional", None, "nortriptyline"),
        ("UM", 2.0, "Optional", None, "nortriptyline"), ("?", 1.0, "Moderate", 0.75, "quarter"),
        ("?", 2.0, "No recommendation", None, "Indeterminate")]],
    ("amitriptyline", {C: "RM"}, "Optional", None, "gene that is known"),
    ("amitriptyline", {D: 0.0}, "Strong", None, "gene that is known"),
    *[("rosuvastatin", {S: s, A: a}, *expected) for s, a, *expected in [
        ("Normal", "Decreased", "Moderate", STANDARD, "wanted"),
        ("Increased", "Poor", "Optional", None, "at most 20 mg"),
        ("Decreased", "Normal", "Strong", STANDARD, "above 20 mg"),
        ("Possible Decreased", "Decreased", "Moderate", STANDARD, "above 20 mg"),
        ("Decreased", "Poor", "Optional", None, "at most 10 mg"),
        ("Poor", "Decreased", "Moderate", None, "at most 20 mg"),
        ("Poor", "Poor", "Optional", None, "at most 10 mg"),
        ("?", "Poor", "Moderate", None, "at most 20 mg"),
    ]],
    ("rosuvastatin", {S: "Decreased"}, "Strong", STANDARD, "above 20 mg"),
    ("rosuvastatin", {A: "Decreased"}, "Moderate", STANDARD, "gene that is known"),
    *[("fluvastatin", {S: s, "CYP2C9": c}, *expected) for s, c, *expected in [
        ("Normal", "*1/*3", "Moderate", None, "at most 40 mg"),
        ("Increased", "*3/*3", "Moderate", None, "at most 20 mg"),
        ("Decreased", "*1/*1", "Moderate", STANDARD, "above 40 mg"),
        ("Decreased", "*1/*2", "Optional", None, "at most 20 mg"),
        ("Poor", "*1/*1", "Moderate", None, "at most 40 mg"),
        ("Poor", "*2/*2", "Optional", None, "another statin"),
        ("Possible Decreased", "*2/*3", "Optional", None, "another statin"),
    ]],
    ("fluvastatin", {S: "Poor"}, "Moderate", None, "at most 40 mg"),
    ("fluvastatin", {"CYP2C9": "*1/*1"}, "Strong", STANDARD, "gene that is known"),
]  # fmt: skip
BY_INDICATION = [
    ("voriconazole", "adults", {C: "RM"}, "Moderate", None, "isavuconazole"),
    ("voriconazole", "adults", {C: "LIM"}, "Moderate", STANDARD, "standard"),
    ("voriconazole", "children", {C: "RM"}, "Moderate", STANDARD, "measure levels"),
    ("voriconazole", "children", {C: "UM"}, "Moderate", None, "posaconazole"),
    ("voriconazole", "children", {C: "PM"}, "Moderate", None, "less than the standard"),
    *[("clopidogrel", place, {C: key}, *expected) for place, key, *expected in [
        ("neurovascular", "IM", "Moderate", None, "another P2Y12"),
        ("neurovascular", "UM", "No recommendation", None, ""),
        ("other cardiovascular", "*2/*17", "No recommendation", None, ""),
        ("other cardiovascular", "PM", "Moderate", None, "prasugrel"),
        ("acute coronary syndrome or percutaneous coronary intervention", "*1/*2",
         "Strong", None, "Avoid the standard dose"),
    ]],
]  # fmt: skip
# Until February 2026, when the guideline of 2025 replaced these.
THIOPURINES = [
    *[(drug, tpmt, nudt15, *expected) for drug in ("azathioprine", "mercaptopurine")
      for tpmt, nudt15, *expected in [
          ("NM", "NM", "Strong", STANDARD, ""), ("IM", "NM", "Strong", 0.3, ""),
          ("possible IM", "IM", "Strong", 0.3, ""),
          ("PM", "IM", "Strong", 0.1, "three days a week"),
          ("NM", "PM", "Strong", 0.1, "every day"), ("IM", "PM", "Strong", 0.1, "every day"),
          ("PM", "PM", "Strong", 0.1, "three days a week"), ("?", "PM", "Strong", 0.1, "every day"),
          ("PM", "?", "Strong", 0.1, "three days a week"), ("?", "IM", "Strong", 0.3, ""),
          ("NM", "?", "Strong", STANDARD, ""), ("?", "?", "Strong", None, "")]],
    *[("thioguanine", tpmt, nudt15, *expected) for tpmt, nudt15, *expected in [
        ("NM", "NM", "Strong", STANDARD, ""), ("IM", "NM", "Moderate", 0.5, ""),
        ("IM", "IM", "Moderate", 0.5, ""), ("PM", "NM", "Strong", 0.1, "three days a week"),
        ("IM", "PM", "Strong", 0.25, ""), ("?", "possible IM", "Moderate", 0.5, ""),
        ("?", "PM", "Strong", 0.25, "")]],
]  # fmt: skip


def check(found: Recommendation, strength: str, factor: float | None, word: str) -> None:
    assert found.strength == strength, found
    first = found.starting_dose_factor[0] if found.starting_dose_factor else None
    assert first == factor, found
    assert word in f"{found.text} {found.limit}", found


@pytest.mark.parametrize(("drug", "genes", "strength", "factor", "word"), ONE_GENE + TWO_GENES)
def test_a_row_of_the_published_table(
    drug: str, genes: Mapping[str, str | float], strength: str, factor: float | None, word: str
) -> None:
    check(answer(drug, genes), strength, factor, word)


@pytest.mark.parametrize(
    ("drug", "indication", "genes", "strength", "factor", "word"), BY_INDICATION
)
def test_a_row_for_one_indication(
    drug: str,
    indication: str,
    genes: Mapping[str, str | float],
    strength: str,
    factor: float | None,
    word: str,
) -> None:
    check(answer(drug, genes, indication), strength, factor, word)


@pytest.mark.parametrize(("drug", "tpmt", "nudt15", "strength", "factor", "word"), THIOPURINES)
def test_thiopurines_before_2026(
    drug: str, tpmt: str, nudt15: str, strength: str, factor: float | None, word: str
) -> None:
    """A poor NUDT15 alone was a tenth every day, and not on three days a week."""
    found = answer(drug, {"TPMT": tpmt, "NUDT15": nudt15}, day=BEFORE_2026)
    check(found, strength, factor, word)


@pytest.mark.parametrize(
    "drug", ["warfarin", "phenytoin", "carbamazepine", "paroxetine", "allopurinol"]
)
def test_what_no_table_covers_is_never_silence(drug: str) -> None:
    """CYP2C9 with HLA (phenytoin), HLA alone: not in the tables, which is said."""
    if drug == "allopurinol":
        with pytest.raises(ValueError, match="drug"):
            recommend(drug, [], as_of=TODAY)
        return
    (found,) = recommend(drug, [gene_result("CYP2C9", diplotype="*1/*3")], as_of=TODAY)
    assert found.action == "no recommendation"
    assert "holds nothing on" in found.text

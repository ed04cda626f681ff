"""What guidelines say: the published rows, pairs of genes, dates, and what no row covers."""

from collections.abc import Sequence
from datetime import date
from typing import Any

import pytest

from fedtwin_twins.pharmacology.drugs import built_in_drugs, find_drug, parse_drugs
from fedtwin_twins.pharmacology.gene_results import GeneResult, gene_result
from fedtwin_twins.pharmacology.recommendations import (
    FORMAT,
    Recommendation,
    built_in_recommendations,
    parse_recommendations,
    recommend,
)
from fedtwin_twins.pharmacology.tables import built_in_text
from fedtwin_twins.twin.refusals import Refusal

from .cases import case, needs_cases

TODAY = date(2026, 11, 28)
OF_THE_CASE = date(2025, 11, 5)
"""The day of the tables that the published rows are from."""
PHENOTYPES = {
    "PM": ["Poor Metabolizer"],
    "IM": ["Intermediate Metabolizer"],
    "NM": ["Normal Metabolizer"],
    "UM": ["Ultrarapid Metabolizer"],
    "UM/RM/NM (ACS/PCI)": ["Ultrarapid Metabolizer", "Rapid Metabolizer", "Normal Metabolizer"],
    "IM or Likely IM (ACS/PCI)": ["Intermediate Metabolizer", "Likely Intermediate Metabolizer"],
    "PM or Likely PM (ACS/PCI)": ["Poor Metabolizer", "Likely Poor Metabolizer"],
    "Decreased": ["Decreased Function", "Possible Decreased Function"],
    "Poor": ["Poor Function"],
    "Normal/Increased": ["Normal Function", "Increased Function"],
    "NM or IM (expresser)": ["Normal Metabolizer", "Intermediate Metabolizer"],
    "PM (*3/*3)": ["Poor Metabolizer"],
}
# Words of the published text that ours must have too, for it is in our own words.
MEANING = {
    "less": ["30", "80"],
    ("codeine", "PM"): ["avoid", "other than tramadol"],
    ("codeine", "UM"): ["avoid", "toxicity"],
    ("codeine", "IM"): ["label", "other than tramadol"],
    ("clopidogrel", "UM/RM/NM (ACS/PCI)"): ["standard dose", "75 mg"],
    ("clopidogrel", "IM or Likely IM (ACS/PCI)"): ["avoid the standard dose", "prasugrel"],
    ("clopidogrel", "PM or Likely PM (ACS/PCI)"): ["avoid clopidogrel", "ticagrelor"],
    ("simvastatin", "Decreased"): ["another statin", "below 20 mg"],
    ("fluorouracil", "AS 1.5"): ["half", "titrate"],
    ("fluorouracil", "AS 1.0"): ["half", "c.2846A>T"],
    ("fluorouracil", "AS 0.5"): ["avoid", "no alternative", "early"],
    ("fluorouracil", "AS 0.0"): ["avoid"],
    ("tacrolimus", "NM or IM (expresser)"): ["1.5 to 2 times", "0.3 mg/kg", "levels"],
    ("azathioprine", "IM"): ["30 to 80 %"],
    ("azathioprine", "PM"): ["tenth", "three days", "no thiopurine"],
}


def results(row: dict[str, Any]) -> list[list[GeneResult]]:
    """What a row of the case may stand for; a pair's other gene is normal."""
    gene = row["gene"]
    others = [gene_result("NUDT15", phenotype="NM")] if gene == "TPMT" else []
    if row["result"].startswith("AS "):
        return [[gene_result(gene, activity_score=float(row["result"][3:]))]]
    return [[gene_result(gene, phenotype=name), *others] for name in PHENOTYPES[row["result"]]]


@needs_cases
@pytest.mark.case("G_recommendations")
def test_all_published_rows() -> None:
    rows = case("G_recommendations")["expected"]["rows"]
    assert len(rows) == 19
    for row in rows:
        indication = "acute coronary syndrome or percutaneous coronary intervention"
        for given in results(row):
            (found,) = recommend(row["drug"], given, as_of=OF_THE_CASE, indication=indication)
            assert found.action == row["action"], row
            assert found.strength == row["strength"].split(" ")[0], row
            for words in MEANING.get((row["drug"], row["result"]), ()):
                assert words in found.text.lower() or words in found.text, (row, found.text)


def one(drug: str, *given: GeneResult, as_of: date = TODAY) -> Recommendation:
    (found,) = recommend(drug, given, as_of=as_of)
    return found


def thiopurine(drug: str, tpmt: str | None, nudt15: str | None, as_of: date) -> Recommendation:
    given = {"TPMT": tpmt, "NUDT15": nudt15}
    known = [gene_result(gene, phenotype=said) for gene, said in given.items() if said]
    return one(drug, *known, as_of=as_of)


@pytest.mark.parametrize("drug", ["azathioprine", "mercaptopurine", "thioguanine"])
def test_a_pair_is_no_minimum_of_two_single_genes(drug: str) -> None:
    """Two intermediate genes need less than the lower of both, since March 2024."""
    one_gene = thiopurine(drug, "IM", "NM", TODAY)
    other = thiopurine(drug, "NM", "IM", TODAY)
    both = thiopurine(drug, "IM", "IM", TODAY)
    assert one_gene.starting_dose_factor == other.starting_dose_factor == (0.3, 0.8)
    assert both.starting_dose_factor == (0.2, 0.5)
    before = thiopurine(drug, "IM", "IM", date(2024, 3, 19))
    assert before.starting_dose_factor == ((0.5, 0.8) if drug == "thioguanine" else (0.3, 0.8))


@pytest.mark.parametrize("drug", ["azathioprine", "mercaptopurine", "thioguanine"])
@pytest.mark.parametrize("day", [OF_THE_CASE, date(2020, 5, 1), TODAY])
def test_every_pair_of_thiopurine_genes_has_one_row(drug: str, day: date) -> None:
    kinds = ["NM", "IM", "Possible Intermediate Metabolizer", "PM", "Indeterminate", None]
    seen = set()
    for tpmt in kinds:
        for nudt15 in kinds:
            found = thiopurine(drug, tpmt, nudt15, day)
            if tpmt or nudt15:
                assert found.source, (tpmt, nudt15, found.text)
                seen.add(found.action)
            else:
                assert found.text == "No recommendation: TPMT and NUDT15 not tested."
    assert len(seen) >= 5


def test_the_newest_guideline_answers_today_and_the_old_one_its_own_day() -> None:
    old = thiopurine("azathioprine", "PM", "NM", date(2026, 2, 2))
    new = thiopurine("azathioprine", "PM", "NM", date(2026, 2, 3))
    assert (old.action, old.source) == ("drastically reduce or alternative", "PMID 30447069")
    assert (new.action, new.source) == ("alternative", "PMID 41618934")
    before = one("fluorouracil", gene_result("DPYD", activity_score=1.5), as_of=date(2018, 10, 1))
    assert "no row of the table is in force on 2018-10-01" in before.text


def test_the_old_dpyd_text_is_not_there() -> None:
    """Until November 2018 an activity score of 1.5 had 25 to 50 %."""
    found = one("fluorouracil", gene_result("DPYD", activity_score=1.5))
    assert found.starting_dose_factor == (0.5, 0.5)
    assert found.since is not None
    assert found.since >= date(2018, 11, 1)
    assert "25" not in found.text


@pytest.mark.parametrize(
    ("drug", "given", "says"),
    [
        ("clopidogrel", [("CYP2C19", "Indeterminate")], "CYP2C19 is Indeterminate, which is not"),
        ("simvastatin", [("SLCO1B1", "Indeterminate")], "SLCO1B1 is Indeterminate"),
        ("fluorouracil", [("DPYD", "IM")], "goes by the activity score of DPYD, which is not"),
        ("sertraline", [("CYP2B6", "Indeterminate")], "CYP2B6 is Indeterminate"),
        ("metoprolol", [("CYP2D6", "UM")], "no row for CYP2D6 Ultrarapid Metabolizer"),
        ("amitriptyline", [("CYP2D6", "Indeterminate")], "CYP2D6 is Indeterminate"),
        ("tamoxifen", [], "CYP2D6 not tested"),
        ("vancomycin", [("CYP2C19", "PM")], "holds nothing on vancomycin"),
    ],
)
def test_no_row_is_said_with_its_reason(
    drug: str, given: Sequence[tuple[str, str]], says: str
) -> None:
    genes = [gene_result(gene, phenotype=name) for gene, name in given]
    for found in recommend(drug, genes, as_of=TODAY):
        assert found.action == "no recommendation"
        assert found.text.startswith("No recommendation: ")
        assert says in found.text
        assert found.verified is None


def test_a_score_that_is_only_a_lower_bound_meets_no_closed_range() -> None:
    many = gene_result("CYP2D6", diplotype="*1x≥3/*4")
    assert one("tamoxifen", many).action == "standard"
    few = gene_result("CYP2D6", diplotype="*10x≥3/*4")
    assert one("tamoxifen", few).action == "no recommendation"


def test_pairs_of_statins_and_antidepressants() -> None:
    poor, low = (
        gene_result("SLCO1B1", phenotype="Poor Function"),
        gene_result("CYP2C9", activity_score=1.0),
    )
    assert one("fluvastatin", poor, low).action == "alternative"
    abcg2 = gene_result("ABCG2", phenotype="Poor Function")
    assert one("rosuvastatin", poor, abcg2).limit == "at most 10 mg as a starting dose"
    assert one("rosuvastatin", abcg2).limit == "at most 20 mg as a starting dose"
    pair = [gene_result(gene, phenotype="PM") for gene in ("CYP2C19", "CYP2B6")]
    assert one("sertraline", *pair).action == "alternative"


def test_indications_are_kept_apart() -> None:
    poor = [gene_result("CYP2C19", phenotype="PM")]
    found = recommend("Clopidogrel", poor, as_of=TODAY)
    assert [answer.strength for answer in found] == ["Strong", "Moderate", "Moderate"]
    (none,) = recommend("clopidogrel", poor, as_of=TODAY, indication="migraine")
    assert "nothing on clopidogrel for the indication 'migraine'" in none.text


def test_one_gene_is_given_once_and_drugs_are_understood() -> None:
    twice = [gene_result("TPMT", phenotype=name) for name in ("PM", "NM")]
    with pytest.raises(Refusal, match="one result of each gene"):
        recommend("azathioprine", twice, as_of=TODAY)
    with pytest.raises(Refusal, match="did you mean codeine"):
        recommend("codein", [], as_of=TODAY)
    assert find_drug("RxNorm:42316") == find_drug("ATC:L04AD02") == find_drug("Tacrolimus")
    assert find_drug("5-FU").name == "fluorouracil"


def test_every_row_has_origin_and_date_and_no_code_is_used_twice() -> None:
    table = built_in_recommendations()
    assert "CC0" in table.origin.licence
    assert table.genes_for("azathioprine") == (("TPMT", "NUDT15"),)
    assert set(table.drugs) >= {
        "clopidogrel",
        "codeine",
        "tacrolimus",
        "capecitabine",
        "irinotecan",
    }
    entries = [entry for drug in table.drugs for entry in table.entries[drug]]
    assert max(entry.since for entry in entries) <= TODAY
    codes = [drug.rxnorm for drug in {id(d): d for d in built_in_drugs().values()}.values()]
    assert len({code for code in codes if code}) == len([code for code in codes if code])


HEAD = f"# format: {FORMAT}\n# version: 2026-11-01\n# source: a site\n# licence: CC0\n"
COLUMNS = (
    "drug,indication,gene_1,result_1,gene_2,result_2,action,strength,factor_low,factor_high,"
    "limit,text,source,since,until,verified,note\n"
)
ROW = "codeine,,CYP2D6,Poor Metabolizer,,,avoid,Strong,,,,Never.,a paper,2026-01-01,,read,\n"


def test_a_site_loads_a_newer_table() -> None:
    table = parse_recommendations(HEAD + COLUMNS + ROW, "ours.csv")
    given = [gene_result("CYP2D6", phenotype="PM")]
    (found,) = recommend("codeine", given, as_of=TODAY, table=table)
    assert (found.text, found.version) == ("Never.", date(2026, 11, 1))
    again = parse_recommendations(built_in_text("recommendations.csv"), "copy.csv")
    assert again.entries.keys() == built_in_recommendations().entries.keys()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no line '# format"),
        (HEAD.replace("recommendations", "recipes") + COLUMNS + ROW, "format fedtwin-recipes"),
        (HEAD.replace("2026-11-01", "soon") + COLUMNS + ROW, "version soon"),
        (HEAD + COLUMNS, "no row"),
        (HEAD + COLUMNS.replace("until", "untill") + ROW, "columns .*untill"),
        (HEAD + COLUMNS + ROW.replace(",,,avoid", ",,avoid"), "line 6 is 16 cells"),
        (HEAD + COLUMNS + ROW.replace("codeine", "codein"), "did you mean codeine"),
        (HEAD + COLUMNS + ROW.replace("CYP2D6", "CYP9X9"), "'gene_1' is CYP9X9"),
        (HEAD + COLUMNS + ROW.replace("Poor Met", "Bad Met"), "'result_1' is Bad Metabolizer"),
        (HEAD + COLUMNS + ROW.replace("Poor Metabolizer", "score 2..1"), "lower score first"),
        (HEAD + COLUMNS + ROW.replace("Poor Metabolizer", "score x"), "expected 'score 1'"),
        (HEAD + COLUMNS + ROW.replace("Strong", "Firm"), "'strength' is Firm"),
        (HEAD + COLUMNS + ROW.replace("2026-01-01", "2026-13-01"), "a day such as"),
        (HEAD + COLUMNS + ROW.replace("2026-01-01", ""), "the day from which the row holds"),
        (HEAD + COLUMNS + ROW.replace(",,read", ",,sure"), "'verified' is sure"),
        (HEAD + COLUMNS + ROW.replace("Strong,,", "Strong,0.5,"), "two factors"),
        (HEAD + COLUMNS + ROW.replace("Strong,,,", "Strong,nan,1,"), "a number or nothing"),
        (HEAD + COLUMNS + ROW.replace("a paper", ""), "'source' is empty"),
        (HEAD + COLUMNS + ROW + ROW, "a result that line 6 is not for"),
        (HEAD + COLUMNS + ROW.replace("Never.", '"Never'), "no CSV|line break"),
    ],
)
def test_a_damaged_table_is_refused_with_file_and_line(text: str, says: str) -> None:
    with pytest.raises(Refusal, match=says) as refused:
        parse_recommendations(text, "ours.csv")
    assert "ours.csv" in refused.value.problems[0].field


def test_two_drugs_with_one_name_are_refused() -> None:
    text = built_in_text("drugs.csv") + "aspirin,703,,memory,\n"
    with pytest.raises(Refusal, match="'rxnorm:703' once alone"):
        parse_drugs(text, "drugs.csv")

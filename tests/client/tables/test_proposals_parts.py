"""Proposed mappings: the lexicon, headings, and published tables."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from fedtwin_client.records.codes.analytes import analyte, analyte_conversion
from fedtwin_client.records.tables.proposals.fitting import convertible
from fedtwin_client.records.tables.proposals.lexicon import MEASURES
from fedtwin_client.records.tables.proposals.matching import heading_of, words_of
from fedtwin_client.records.tables.proposals.proposing import propose
from fedtwin_client.records.tables.proposals.sniffing import read_start
from fedtwin_client.records.tables.proposals.writing import proposal_text
from fedtwin_protocol.strict_yaml import load_strictly

SHARED = Path(__file__).parents[4] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not here")


def test_the_lexicon_fits_what_the_node_knows() -> None:
    """Each code's units convert; a code that the node keeps in another kind of unit does so too."""
    for measure in MEASURES:
        assert measure.usual[0] < measure.usual[1], measure.name
        assert measure.plausible[0] <= measure.usual[0] < measure.usual[1] <= measure.plausible[1]
        for unit, code in measure.codes.items():
            assert convertible(measure, unit), (measure.name, unit)
            known = analyte(f"LOINC//{code}")
            if known is not None:
                assert analyte_conversion(f"LOINC//{code}", unit, known.unit), (code, unit)
        for name in measure.names:
            assert words_of(name), (measure.name, name)


@pytest.mark.parametrize(
    ("name", "words", "unit"),
    [
        ("chol (mg/dL)", ("chol",), "mg/dL"),
        ("LDL_mmol_l", ("ldl",), "mmol/L"),
        ("hb_g_l", ("hb",), "g/L"),
        ("WBC (10^9/L)", ("wbc",), "10*9/L"),
        ("Gewicht in kg", ("gewicht", "in"), "kg"),
        ("Ferritin µg/l", ("ferritin",), "ug/L"),
        ("Ferritin_\N{GREEK SMALL LETTER MU}g_l", ("ferritin",), "ug/L"),
        ("Kreatinin µmol/l", ("kreatinin",), "umol/L"),
        ("Leukozyten /µl", ("leukozyten",), "/uL"),
        ("Total Protein in g/dl", ("total", "protein"), "g/dL"),
        ("sysBP", ("sys", "bp"), None),
        ("(mg/dL)", ("mg", "d", "l"), None),
        ("", (), None),
    ],
)
def test_a_heading_is_taken_apart(name: str, words: tuple[str, ...], unit: str | None) -> None:
    heading = heading_of(name)
    assert (heading.words, heading.unit) == (words, unit)


@needs_shared
@pytest.mark.parametrize(
    ("path", "meant"),
    [
        (
            "rdatasets_shared/survival__pbc.csv",
            {
                "bili": "mg/dL",
                "chol": "mg/dL",
                "albumin": "g/dL",
                "platelet": "10*9/L",
                "protime": "s",
                "trig": "mg/dL",
                "ast": "U/L",
                "alk.phos": "U/L",
            },
        ),
        (
            "rdatasets_shared/CardioDataSets__cardioRiskFactors_df.csv",
            {
                "choles": "mmol/L",
                "trig": "mmol/L",
                "hdl": "mmol/L",
                "Uric": "umol/L",
                "sys": "mm[Hg]",
                "dia": "mm[Hg]",
                "bmi": "kg/m2",
                "ldl": "mmol/L",
            },
        ),
        ("rdatasets_shared/MASS__Pima.tr2.csv", {"glu": "mg/dL", "bmi": "kg/m2"}),
        ("rdatasets_shared/survival__rotterdam.csv", {}),
        ("cgm_iglu/example_data_1_subject.csv", {"gl": "mg/dL"}),
        ("uci_heart/processed.hungarian.data", {}),
        ("flamby_heart_results/heart_seed42.csv", {}),
    ],
)
def test_published_tables_get_the_units_of_their_documentation(
    path: str, meant: dict[str, str]
) -> None:
    found = propose(read_start(SHARED / path))
    numbers = {item.profile.name: item.unit for item in found.columns if item.kind == "number"}
    assert numbers == meant
    assert load_strictly(proposal_text(found))["reviewed"] is False


@needs_shared
def test_a_file_without_a_header_says_so_and_finds_its_marks() -> None:
    found = propose(read_start(SHARED / "uci_heart" / "processed.hungarian.data"))
    written: dict[str, Any] = yaml.safe_load(proposal_text(found))
    assert written["header"] is False
    assert len(written["column_names"]) == 14
    assert "?" in written["missing"]
    assert "header" in found.table.unsure

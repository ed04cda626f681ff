"""Calls that others made: PharmCAT's report and phenotype file, reported diplotypes."""

import csv
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtwin_client.records.events import Event
from fedtwin_client.records.genome.gene_reports import gene_reports
from fedtwin_client.records.genome.gene_sets import gene_tables
from fedtwin_client.records.people import People, Person
from fedtwin_client.records.report import Tally
from fedtwin_protocol.errors import RecordError

from .genomes import EXAMPLES, ONE, events_of

HEADER = (
    "PharmCAT v3.1.0\nGene\tSource Diplotype\tPhenotype\tActivity Score\tOutside Call\t"
    "Missing positions\tRecommendation Lookup Phenotype\tRecommendation Lookup Activity Score\n"
)


def read(path: Path, people: People = ONE) -> tuple[dict[str, dict[str, Event]], Tally]:
    return events_of(gene_reports([path], people, gene_tables(None)))


def texts(parts: dict[str, Event]) -> tuple[str | None, str | None, float | None]:
    """Diplotype, phenotype, score."""
    return (
        parts["diplotype"].text_value if "diplotype" in parts else None,
        parts["phenotype"].text_value if "phenotype" in parts else None,
        parts["activity-score"].numeric_value if "activity-score" in parts else None,
    )


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the shared data are not here")
@pytest.mark.parametrize(("name", "genes"), [("pharmcat.example", 14), ("pharmcat.example2", 13)])
def test_both_files_of_a_public_example_say_the_same(name: str, genes: int) -> None:
    report, tally = read(EXAMPLES / f"{name}.report.tsv")
    phenotype, _ = read(EXAMPLES / f"{name}.phenotype.json.gz")
    assert len(report) == genes
    assert {gene: texts(parts) for gene, parts in report.items()} == {
        gene: texts(parts) for gene, parts in phenotype.items()
    }
    rows = list(
        csv.DictReader(
            (EXAMPLES / f"{name}.report.tsv").read_text().splitlines()[1:], delimiter="\t"
        )
    )
    assert tally.read["calls"] == len(rows)
    assert len(rows) == genes + sum(tally.reasons.values())
    for row in rows:
        if row["Gene"] in report:
            score = float(row["Activity Score"]) if row["Activity Score"] else None
            assert texts(report[row["Gene"]]) == (
                row["Source Diplotype"],
                row["Phenotype"] or None,
                score,
            )


def gene_report(diplotype: str, phenotype: str) -> dict[str, object]:
    return {"sourceDiplotypes": [{"label": diplotype, "phenotypes": [phenotype]}], "variants": []}


@pytest.mark.parametrize("key", ["geneReports", "genes"])
def test_reports_that_go_by_sources_of_guidelines(tmp_path: Path, key: str) -> None:
    """PharmCAT 2 says each gene by CPIC and by DPWG; CPIC's word counts, and DPWG's alone."""
    path = tmp_path / "x.report.json"
    content = {
        "DPWG": {
            "CYP2C19": gene_report("*1/*17", "Normal Metabolizer"),
            "CYP2C9": gene_report("*1/*2", "Intermediate Metabolizer"),
        },
        "CPIC": {"CYP2C19": gene_report("*1/*17", "Rapid Metabolizer")},
    }
    path.write_text(json.dumps({"pharmcatVersion": "v2.8.3", key: content}))
    found, tally = read(path)
    assert {gene: texts(parts)[1] for gene, parts in found.items()} == {
        "CYP2C19": "Rapid Metabolizer",
        "CYP2C9": "Intermediate Metabolizer",
    }
    assert tally.read["calls"] == 3
    assert dict(tally.reasons) == {"what DPWG makes of a gene, beside CPIC's": 1}


def test_a_report_by_genes(tmp_path: Path) -> None:
    path = tmp_path / "x.report.json"
    report = {"title": "x", "genes": {"CYP2C19": gene_report("*1/*2", "Intermediate Metabolizer")}}
    path.write_text(json.dumps(report))
    found, _ = read(path)
    assert texts(found["CYP2C19"])[:2] == ("*1/*2", "Intermediate Metabolizer")


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the shared data are not here")
def test_reported_calls_of_a_public_example() -> None:
    found, tally = read(EXAMPLES / "pharmcat.example.outsideCall.tsv")
    assert texts(found["CYP2D6"]) == ("*1/*3", "Intermediate Metabolizer", 1.0)
    assert "by this node's tables" in (found["CYP2D6"]["diplotype"].status or "")
    assert sum(tally.reasons.values()) == 2


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("CYP2D6\t*1x3/*4\n", ("*1x3/*4", "Ultrarapid Metabolizer", 3.0)),
        ("CYP2D6\t*1x≥3/*4\n", ("*1x≥3/*4", "Ultrarapid Metabolizer", 3.0)),
        ("CYP2D6\t\tPM\n", (None, "Poor Metabolizer", None)),
        ("CYP2C9\t\t\t2.0\n", (None, None, 2.0)),
        ("CYP2C19\t*2/*1\n", ("*2/*1", "Intermediate Metabolizer", None)),
        ("CYP2C19\t*1/*12\n", ("*1/*12", "Indeterminate", None)),
        ("CYP4F2\t*1/*3\n", ("*1/*3", None, None)),
        ("CYP2C19\t*1/*2\tPoor Metabolizer\n", ("*1/*2", "Poor Metabolizer", None)),
    ],
)
def test_reported_calls(
    tmp_path: Path, line: str, expected: tuple[str | None, str | None, float | None]
) -> None:
    path = tmp_path / "calls.tsv"
    path.write_text(f"# a remark\n\n{line}", encoding="utf-8")
    found, tally = read(path)
    (parts,) = found.values()
    assert texts(parts) == expected
    if "≥" in line:
        assert parts["activity-score"].comparator == ">="
    disagrees = "Poor Metabolizer" in line
    assert bool(tally.notes) == disagrees


def test_a_report_of_many_samples(tmp_path: Path) -> None:
    path = tmp_path / "all.report.tsv"
    path.write_text(
        "PharmCAT v3.1.0\nSample ID\tGene\tSource Diplotype\tPhenotype\n"
        "A\tCYP2C19\t*1/*2\tIntermediate Metabolizer\n"
        "B\tCYP2C19\t*1/*1\tNormal Metabolizer\n"
    )
    with pytest.raises(RecordError, match="holds 2 samples"):
        read(path)
    people = People(by_sample={"B": Person(patient="1", date="2026-01-01")}, system="urn:mrn")
    found, tally = read(path, people)
    assert texts(found["CYP2C19"]) == ("*1/*1", "Normal Metabolizer", None)
    assert tally.reasons == {"a sample that no patient is named for": 1}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            "DPYD\tc.1627A>G (*5) AND c.1905+1G>A (*2A)\t\t\tno\tno\tIntermediate Metabolizer\t1.0",
            ("c.1627A>G (*5) AND c.1905+1G>A (*2A)", "Intermediate Metabolizer", 1.0),
        ),
        (
            "SLCO1B1\t*4/*15 OR *5/*14\tIndeterminate / Decreased Function\t\tno\tno\t\t",
            ("*4/*15 OR *5/*14", "Indeterminate", None),
        ),
        (
            "UGT1A1\t*6/*6 OR *6/*28\tPoor Metabolizer / Poor Metabolizer\t\tno\tno",
            ("*6/*6 OR *6/*28", "Poor Metabolizer", None),
        ),
    ],
)
def test_what_a_report_leaves_open(
    tmp_path: Path, row: str, expected: tuple[str | None, str | None, float | None]
) -> None:
    path = tmp_path / "x.report.tsv"
    path.write_text(f"{HEADER}{row}\n")
    found, _ = read(path)
    (parts,) = found.values()
    assert texts(parts) == expected


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("CYP2C19\tno call\t\t\tno\tyes\n", "CYP2C19: not called"),
        ("CFTR\tx/y\tz\t\tno\tno\n", "CFTR: a gene that no model here uses"),
        ("CYP2C9\t*1/*2\tx\tmuch\tno\tno\n", "an activity score that is no number"),
        ("CYP2C9\t*1/*2\tx\x07\t1\tno\tno\n", "a call that is too long, or holds signs"),
        ("CYP2C9\t*1/*2\ta\t\tno\tno\nCYP2C9\t*1/*3\ta\t\tno\tno\n", "CYP2C9: called more than"),
    ],
)
def test_what_is_no_call_is_counted(tmp_path: Path, rows: str, reason: str) -> None:
    path = tmp_path / "x.report.tsv"
    path.write_text(f"{HEADER}{rows}TPMT\t*1/*1\tNormal Metabolizer\t\tno\tno\n")
    found, tally = read(path)
    assert list(found) == ["TPMT"]
    assert sum(n for text, n in tally.reasons.items() if text.startswith(reason)) == rows.count(
        "\n"
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "found no call"),
        (b"PharmCAT v3\n", "expected the columns Gene"),
        (b"PharmCAT v3\nGene\tPhenotype\n", "expected the columns Gene"),
        (b"{", "not whole JSON"),
        (b"[" * 100_000, "not whole JSON"),
        (b"[]", "found something else"),
        (json.dumps({"results": []}).encode(), "matcher results"),
        (json.dumps({"geneReports": {"CYP2C19": 3}}).encode(), "CYP2C19: not called"),
        (b"CYP2D6\t*1/\xff4\n", "not UTF-8"),
        (b"CYP2D6 *1/*4\n", "separated by tabs"),
        (b"CYP2D6\rx\t*1/*4\n", "separated by tabs"),
        (gzip.compress(b"PharmCAT v3\n" * 99, mtime=0)[:-9], "ends in the middle"),
    ],
)
def test_what_is_no_report(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "x.tsv"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=says):
        read(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("sourceDiplotypes", "recommendationDiplotypes", "label", "phenotypes"),
                    *("activityScore", "variants", "call", "CYP2D6", "DPYD"),
                ]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(reports=st.dictionaries(st.sampled_from(["CYP2D6", "DPYD", "X"]), JSON, max_size=2))
def test_any_phenotype_file_is_read_or_refused_in_words(
    tmp_path_factory: pytest.TempPathFactory, reports: dict[str, object]
) -> None:
    path = tmp_path_factory.mktemp("any") / "x.json"
    path.write_text(json.dumps({"geneReports": reports}))
    try:
        found, tally = read(path)
    except RecordError:
        return
    assert tally.read["calls"] == len(found) + sum(tally.reasons.values())

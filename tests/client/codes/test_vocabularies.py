"""Vocabularies that a site loads for itself; every name in these files is made up."""

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtwin_client.records.codes.vocabularies import Edition, editions, load_vocabulary, look_up
from fedtwin_client.records.codes.vocabulary_files import read_vocabulary
from fedtwin_client.store.imports import import_table
from fedtwin_protocol.errors import RecordError

NOW = datetime(2026, 11, 28, tzinfo=UTC)
CONCEPTS = (
    "id\teffectiveTime\tactive\tmoduleId\tdefinitionStatusId\n"
    "1001\t20260131\t1\t9\t9\n1002\t20260131\t0\t9\t9\n"
)
DESCRIPTIONS = (
    "id\teffectiveTime\tactive\tmoduleId\tconceptId\tlanguageCode\ttypeId\tterm\tcaseSignificanceId\n"
    '1\t20260131\t1\t9\t1001\ten\t900000000000003001\tMade-up "state" (finding)\t9\n'
    "2\t20260131\t1\t9\t1001\ten\t900000000000013009\tA synonym\t9\n"
    "3\t20260131\t1\t9\t1002\ten\t900000000000003001\tGone (finding)\t9\n"
)
OMOP = (
    "concept_id\tconcept_name\tdomain_id\tvocabulary_id\tconcept_class_id\tstandard_concept\t"
    "concept_code\tvalid_start_date\tvalid_end_date\tinvalid_reason\n"
    "1\tMade-up drug\tDrug\tATC\tATC 5th\tC\tZ99ZZ99\t19700101\t20991231\t\n"
    "2\tOld disease\tCondition\tICD10GM\tx\t\tZ99.9\t19700101\t20200101\tD\n"
    "3\tGender\tGender\tGender\tx\tS\tM\t19700101\t20991231\t\n"
)  # fmt: skip
RXNORM = "{cui}|ENG|P|L|PF|S|Y|A||{cui}||{sab}|{tty}|{cui}|{name}|0|{gone}|4096|\n"


def written(folder: Path, text: str, name: str = "list.txt") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "vocabulary", "code", "name"),
    [
        (DESCRIPTIONS, None, "SNOMED//1001", 'Made-up "state" (finding)'),
        (OMOP, None, "ATC//Z99ZZ99", "Made-up drug"),
        (OMOP.replace("\t", ","), None, "ATC//Z99ZZ99", "Made-up drug"),
        ("Z999    Made-up illness\nZ99     Others\n", None, "ICD10//Z99.9", "Made-up illness"),
        (f"00001 Z999    1 {'Short':<60} Made-up long\n", None, "ICD10//Z99.9", "Made-up long"),
        ("4;T;X;22;Z80;Z99.9-;Z99.9;Z999;Ausgedacht;;\n", None, "ICD10//Z99.9", "Ausgedacht"),
        ("ATC code;ATC level name\nZ99ZZ99;made-up\n", None, "ATC//Z99ZZ99", "made-up"),
        ("code,name\nZ999,made-up\n", "ICD10", "ICD10//Z99.9", "made-up"),
        ("\ufeffcode,name\n1,\"a, b\"\n", "CVX", "CVX//1", "a, b"),
        (
            RXNORM.format(cui=7, sab="RXNORM", tty="SCD", name="made-up 5 MG", gone="N")
            + RXNORM.format(cui=7, sab="RXNORM", tty="SY", name="synonym", gone="N")
            + RXNORM.format(cui=8, sab="RXNORM", tty="SCD", name="old", gone="O")
            + RXNORM.format(cui=9, sab="OTHER", tty="CD", name="theirs", gone="N"),
            None,
            "RXNORM//7",
            "made-up 5 MG",
        ),
    ],
)  # fmt: skip
def test_published_forms_are_told_apart(
    tmp_path: Path, text: str, vocabulary: str | None, code: str, name: str
) -> None:
    load_vocabulary(
        [written(tmp_path, text)], tmp_path, edition="1", now=NOW, vocabulary=vocabulary
    )
    (entry,) = look_up(tmp_path, [code])[code]
    assert (entry.edition, entry.name, entry.active) == ("1", name, True)
    assert look_up(tmp_path, ["RXNORM//8", "RXNORM//9"]) == {"RXNORM//8": [], "RXNORM//9": []}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_snomed_comes_in_two_files_in_any_order(tmp_path: Path, order: tuple[int, int]) -> None:
    both = [written(tmp_path, CONCEPTS, "c.txt"), written(tmp_path, DESCRIPTIONS, "d.txt")]
    load_vocabulary([both[place] for place in order], tmp_path, edition="INT 2026-01", now=NOW)
    found = look_up(tmp_path, ["SNOMED//1001", "SNOMED//1002"])
    assert [entry.active for (entry,) in found.values()] == [True, False]
    assert [entry.name for (entry,) in found.values()][1] == "Gone (finding)"


def test_an_edition_replaces_itself_and_no_other(tmp_path: Path) -> None:
    for edition, code in (("GM 2025", "Z981"), ("GM 2026", "Z982"), ("GM 2026", "Z983")):
        file = written(tmp_path, f"code,name\n{code},made-up\n")
        load_vocabulary([file], tmp_path, edition=edition, now=NOW, vocabulary="ICD10")
    assert editions(tmp_path) == [
        Edition("ICD10", "GM 2025", "2026-11-28", 1),
        Edition("ICD10", "GM 2026", "2026-11-28", 1),
    ]
    found = look_up(tmp_path, ["ICD10//Z98.1", "ICD10//Z98.2", "ICD10//z983"])
    assert [len(entries) for entries in found.values()] == [1, 0, 1]


@pytest.mark.parametrize(
    ("text", "vocabulary", "fault"),
    [
        ("", None, "is of no form that is known"),
        ("one,two\n1,2\n", None, "is of no form that is known"),
        ("code,name\n1,2\n", None, "does not say which vocabulary it is; give --vocabulary"),
        ("code,name\n", "ATC", "found no code in these files; nothing was changed"),
        ("code,name\n1\n", "ATC", "row 2: expected a code and its name"),
        ('code,name\n"1,2\n', "ATC", "is not CSV"),
        (CONCEPTS[:-6], None, "line 3: expected 5 cells, found 3; was the file cut off?"),
        (CONCEPTS, "ATC", "is a file of SNOMED, not of ATC"),
        ("Z999    Made-up\nnonsense\n", None, "line 2: expected a code and its name"),
        (OMOP + "1\t2\n", None, "row 5: expected 10 cells, found 2"),
        (CONCEPTS, "ICPC", "expected a vocabulary of SNOMED, RXNORM"),
    ],
)
def test_a_wrong_file_is_a_sentence_and_changes_nothing(
    tmp_path: Path, text: str, vocabulary: str | None, fault: str
) -> None:
    first = written(tmp_path, "code,name\nZ99ZZ99,made-up\n", "first.csv")
    load_vocabulary([first], tmp_path, edition="1", now=NOW, vocabulary="ATC")
    wrong = written(tmp_path, text)
    with pytest.raises(RecordError) as told:
        load_vocabulary([wrong], tmp_path, edition="1", now=NOW, vocabulary=vocabulary)
    assert fault in str(told.value)
    assert editions(tmp_path) == [Edition("ATC", "1", "2026-11-28", 1)]


@given(st.one_of(st.binary(max_size=300), st.text(max_size=100).map(lambda t: (OMOP + t).encode())))
def test_any_bytes_are_a_vocabulary_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    file = tmp_path_factory.mktemp("any") / "file"
    file.write_bytes(data)
    with suppress(RecordError):
        assert all(concept.code is not None for concept in read_vocabulary(file, "ATC"))


def test_an_import_points_out_codes_that_are_not_there(tmp_path: Path) -> None:
    concepts, store = written(tmp_path, CONCEPTS), tmp_path / "store"
    load_vocabulary([concepts], store, edition="INT", now=NOW)
    table, mapping = tmp_path / "t.csv", tmp_path / "m.yaml"
    table.write_text("mrn,day,dx\n1,2026-01-05,1001\n1,2026-01-06,1002\n2,2026-01-05,4711\n")
    mapping.write_text(
        "name: dx\nsubject: {column: mrn}\ntime: {column: day}\n"
        "columns:\n  dx: {kind: code, vocabulary: SNOMED}\n"
    )
    report = import_table(table, mapping, store, secret=b"s" * 32, now=NOW)
    assert report.events == 3
    assert report.notes == {
        "a code that is not in SNOMED (INT)": 1,
        "a code that is no longer active in SNOMED (INT)": 1,
    }
    assert report.examples["a code that is not in SNOMED (INT)"] == ("SNOMED//4711",)

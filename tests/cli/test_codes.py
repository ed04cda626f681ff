"""`fedtwin client records codes …` and `vocabulary …`, as they are typed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

Type = Callable[..., Any]
CODES = ("client", "records", "codes")


def test_codes_are_added_listed_and_checked(type_in: Type, node: Path) -> None:
    at = ("--home", node)
    added = type_in(*CODES, "add", "LOCAL//CHOL", "LOINC//2093-3", "--by", "A. Berg", *at)
    assert added.status == 0, added.err
    assert "LOCAL//CHOL is read as LOINC//2093-3 (total cholesterol, kept in mmol/L)" in added.out
    again = type_in(*CODES, "add", "LOCAL//CHOL", "LOINC//2085-9", "--by", "CD", *at)
    assert "and no longer as LOINC//2093-3, which A. Berg wrote on " in again.out
    added = type_in(*CODES, "add", "LOCAL//CHOL", "LOINC//2093-3", "--by", "A. Berg", *at)
    assert type_in(*CODES, "add-unit", "mg/dl-ser", "mg/dL", "--by", "AB", *at).status == 0
    ranged = type_in(*CODES, "add-range", "LOINC//2345-7", "0.4", "70", "--by", "AB", *at)
    assert "glucose (LOINC//2345-7) is plausible from 0.4 to 70 mmol/L" in ranged.out
    listed = type_in(*CODES, "list", "--all", *at).out
    for text in ("LOCAL//CHOL", "A. Berg", "mg/dl-ser", "0.4 to 70", "MIMIC-Extract", "3 rows"):
        assert text in listed, text
    checked = type_in(*CODES, "check", *at)
    assert "in order: 306 codes" in checked.out
    assert "1 local codes" in checked.out


def test_a_wrong_row_is_a_sentence_and_writes_nothing(type_in: Type, node: Path) -> None:
    wrong = type_in(*CODES, "add", "LOCAL//CHOL", "LOINC//2093-4", "--by", "AB", "--home", node)
    assert wrong.status == 2
    assert "LOINC//2093-4 is mistyped" in wrong.err
    assert "nothing was written" in wrong.err
    assert not (node / "records" / "codes").exists()
    (node / "records" / "codes").mkdir(parents=True)
    (node / "records" / "codes" / "codes.csv").write_text("local,standard,reviewer,date\nCHOL,,,\n")
    checked = type_in(*CODES, "check", "--home", node)
    assert checked.status == 2
    assert "codes.csv, line 2: expected a code such as LOINC//2093-3" in checked.err


def test_a_vocabulary_is_loaded_listed_and_shown(type_in: Type, node: Path) -> None:
    at, words = ("--home", node), ("client", "records", "vocabulary")
    assert "none is loaded" in type_in(*words, "list", *at).out
    file = node / "atc.csv"
    file.write_text("ATC code,ATC level name\nZ99ZZ99,made-up\n")
    loaded = type_in(*words, "load", file, "--edition", "2026", *at)
    assert "ATC 2026: 1 codes" in loaded.out, loaded.err
    assert "2026" in type_in(*words, "list", *at).out
    assert "ATC//Z99ZZ99: made-up, in 2026" in type_in(*words, "show", "ATC//Z99ZZ99", *at).out
    assert "is in nothing that is loaded" in type_in(*words, "show", "ATC//A", *at).out
    known = type_in(*words, "show", "LOINC//2093-3", *at).out
    assert "total cholesterol, kept in mmol/L" in known


def test_units_are_proposed_and_accepted(type_in: Type, node: Path) -> None:
    reference, values = node / "reference.csv", node / "values.csv"
    head = ",".join(f"q{level:02d}" for level in range(5, 100, 5))
    sketch = ",".join(f"{3 + 4 * step / 18:.2f}" for step in range(19))
    reference.write_text(f"code,unit,{head}\nLOINC//2093-3,mmol/L,{sketch}\n")
    rows = "".join(f"LOINC//2093-3,{120 + 5 * number}\n" for number in range(30))
    values.write_text(f"code,value\n{rows}")
    words = (*CODES, "propose-units", reference, "--home", node)
    assert "0 codes have values without a unit" in type_in(*words).out
    proposed = type_in(*words, "--values", values)
    assert proposed.status == 0, proposed.err
    assert "mg/dL 0." in proposed.out
    accept = ("assume-unit", "LOINC//2093-3", "mg/dL", "--by", "AB", "--home", node)
    assert "without a unit is read as mg/dL" in type_in(*CODES, *accept).out

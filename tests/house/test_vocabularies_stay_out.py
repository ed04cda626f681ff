"""No vocabulary that may not be passed on is shipped: what goes into the wheel is looked through.

LOINC may be, with its notice, and little of it. SNOMED CT, ATC and the national editions of ICD may
not: a site loads its own. Single codes that the product itself speaks of are no vocabulary.
"""

import re
from functools import cache
from pathlib import Path

import pytest

from fedtwin_client.records.codes.rows import check_digit

ROOT = Path(__file__).parents[2]
PACKAGES = ("protocol", "twin_models", "client", "server", "research", "cli")
MOST_LOINC = 300
MOST_OTHERS = {"ATC": 40, "ICD": 40, "SNOMED": 150}  # SNOMED: mostly organs that images show
FEW_ROWS = 10
LOINC = re.compile(r"(?<![\w.+-])(\d{3,6})-(\d)(?![\w.-])")
CODES = {
    "ATC": re.compile(r"(?<![A-Z0-9])[A-DGHJLMNPRSV]\d{2}[A-Z]{2}(?:\d{2})?(?![A-Z0-9])"),
    "ICD": re.compile(r"(?:ICD10//|(?<![\w.]))[A-Z]\d{2}\.\d{1,2}(?![\w.])"),
    "SNOMED": re.compile(r"SNOMED//\d{6,18}"),
}
HEADERS = (
    ("id", "effectivetime", "active", "moduleid"),
    ("concept_id", "concept_name", "concept_code"),
    ("atc code", "atc level name"),
)
NAMED_ROW = re.compile(
    r"[\s\"]*(?:[A-V]\d{2}[A-Z]{0,2}\d{0,2}(?:\.?\d{1,2})?|\d{6,18})\"?[\s,;|]+"
    r"\"?[A-Za-z]+[ -][A-Za-z]{2}"
)


@cache
def shipped() -> dict[Path, str]:
    """Every file of the packages, with its text."""
    return {
        path: path.read_text(errors="ignore")
        for name in PACKAGES
        for path in sorted((ROOT / name).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def looks_like_a_vocabulary(text: str) -> bool:
    """Whether a data file begins like one, or has many rows of a code and its name."""
    first = text.partition("\n")[0].lower()
    if any(all(column in first for column in header) for header in HEADERS):
        return True
    return sum(NAMED_ROW.match(line) is not None for line in text.splitlines()) > FEW_ROWS


def test_no_data_file_is_a_vocabulary() -> None:
    files = {path: text for path, text in shipped().items() if path.suffix != ".py"}
    assert any(path.name == "analytes.csv" for path in files)
    archives = {".zip", ".gz", ".xz", ".bz2", ".db", ".sqlite", ".parquet", ".rrf"}
    assert [path for path in files if path.suffix.lower() in archives] == []
    assert [path for path, text in files.items() if looks_like_a_vocabulary(text)] == []


def test_few_codes_are_named_at_all() -> None:
    texts = shipped().values()
    loinc = {
        match[0]
        for text in texts
        for match in LOINC.finditer(text)
        if check_digit(match[1]) == int(match[2])
    }
    assert 100 < len(loinc) < MOST_LOINC
    for vocabulary, pattern in CODES.items():
        found = {match[0] for text in texts for match in pattern.finditer(text)}
        assert len(found) < MOST_OTHERS[vocabulary], (vocabulary, sorted(found)[:10])


def test_the_notices_are_shipped_beside_the_codes() -> None:
    folder = ROOT / "client" / "fedtwin_client" / "records" / "codes" / "shipped_tables"
    notice = (folder / "README.md").read_text()
    assert "LOINC is copyright" in notice
    assert "UCUM is copyright" in notice


@pytest.mark.parametrize(
    "text",
    [
        "id\teffectiveTime\tactive\tmoduleId\tdefinitionStatusId\n1\t2\t1\t3\t4\n",
        "ATC code,ATC level name\n",
        "\n".join(f"Z99ZZ{number};made-up drug" for number in range(10, 30)).replace("Z99", "A99"),
        "\n".join(f"A{number}.1  made-up illness" for number in range(10, 30)),
        "\n".join(f"10000{number}\tmade-up state" for number in range(10, 30)),
    ],
)
def test_vocabularies_are_recognised(text: str) -> None:
    assert looks_like_a_vocabulary(text)

"""Proposed mappings: marks in numbers, dates of results, Dutch names, what a person is asked."""

from pathlib import Path
from typing import Any

import pytest

from fedtwin_client.records.tables.proposals.writing import proposal_text
from fedtwin_protocol.strict_yaml import load_strictly

from .proposal_parts import lines_of, proposed


@pytest.mark.parametrize(
    ("delimiter", "cells", "figures", "asked"),
    [
        (";", ("1.234,5", "980,0", "2.100"), (",", "."), {"thousands"}),
        (",", ('"1,234.5"', "980.5", '"2,100"'), (".", ","), {"thousands"}),
        (";", ("1.234.567", "980,5", "2.100"), (",", "."), {"thousands"}),
        (";", ("1'234.5", "980.5", "2'100"), (".", "'"), {"thousands"}),
        (";", ("1 234,5", "980,5", "2 100"), (",", " "), {"thousands"}),
        (";", ("1.234,5", "980.55", "2,5"), (",", "."), {"thousands", "decimal"}),
        (";", ("1.234,5", "1,234.5", "2,5"), (",", None), {"decimal"}),
        (";", ("1.234", "98,5", "7,5"), (",", None), {"decimal"}),
        (";", ("1.234", "98.5", "7.5"), (".", None), set()),
        (";", ("1.234", "12.500", "980"), (".", None), {"decimal"}),
        (";", ("1,234", "12,500", "980"), (",", None), {"decimal"}),
        (";", ("1.234", "0.125", "980"), (".", None), set()),
    ],
)
def test_marks_between_thousands_are_proposed_where_a_number_tells_them(
    tmp_path: Path, delimiter: str, cells: tuple[str, ...], figures: Any, asked: set[str]
) -> None:
    lines = [f"P{number}{delimiter}{cells[number % 3]}" for number in range(60)]
    found = proposed(tmp_path, "\n".join([f"mrn{delimiter}ferritin", *lines]) + "\n")
    assert tuple(found.table.figures) == figures
    assert set(found.table.unsure) - {"delimiter"} == asked
    text = proposal_text(found)
    assert ("\nthousands:" in text) == ("thousands" in asked)
    written = load_strictly(text)
    assert (written.get("decimal", "."), written.get("thousands")) == figures
    if "98,5" in cells:
        assert "three figures" in found.table.unsure["decimal"]


@pytest.mark.parametrize(
    ("names", "time", "known", "asked"),
    [
        ("Collection Date,Result Date", "Collection Date", "Result Date", False),
        ("Afnamedatum,Uitslagdatum", "Afnamedatum", "Uitslagdatum", False),
        ("Order Date,Result Date", "Order Date", "Result Date", True),
        ("Result Date,Note", "Result Date", None, False),
        ("Geboortedatum,Afnamedatum", "Afnamedatum", None, False),
        ("Issued,Note", None, None, True),
    ],
)
def test_the_date_of_a_result_is_when_it_became_known(
    tmp_path: Path, names: str, time: str | None, known: str | None, asked: bool
) -> None:
    second = "x" if "Note" in names else "2023-05-17"
    lines = [f"P{number},2023-05-{number % 20 + 1:02d},{second}" for number in range(60)]
    found = proposed(tmp_path, f"mrn,{names}\n" + "\n".join(lines) + "\n")
    roles = {item.role: item.profile.name for item in found.columns}
    assert (roles.get("time"), roles.get("known")) == (time, known)
    assert ("time" in found.unsure) == asked


def test_excels_line_about_the_delimiter_is_passed_over(tmp_path: Path) -> None:
    found = proposed(tmp_path, "sep=;\r\nmrn;date;weight kg\r\n7;2023-05-01;80\r\n")
    assert found.table.names == ("mrn", "date", "weight kg")


DUTCH = lines_of(
    "Patiëntnummer;Geboortedatum;Geslacht;Afnamedatum;Kreatinine µmol/l;Natrium;Roker",
    lambda drawn, n: ";".join(
        [
            str(4711 + n),
            f"{drawn.randint(1, 28):02}-{drawn.randint(1, 12):02}-19{drawn.randint(30, 89)}",
            drawn.choice(["man", "vrouw"]),
            f"{drawn.randint(13, 28)}-{drawn.randint(1, 12):02}-2023",
            f"{drawn.gauss(85, 15):.1f}".replace(".", ","),
            f"{drawn.gauss(140, 3):.0f}",
            drawn.choice(["ja", "nee"]),
        ]
    ),
)


def test_a_dutch_table_is_understood(tmp_path: Path) -> None:
    found = proposed(tmp_path, DUTCH)
    roles = {item.role: item.profile.name for item in found.columns if item.role != "value"}
    assert roles == {"patient": "Patiëntnummer", "birth": "Geboortedatum", "sex": "Geslacht",
                     "time": "Afnamedatum"}  # fmt: skip
    assert (found.male, found.female) == (("man",), ("vrouw",))
    meant = {item.profile.name: (item.code, item.unit) for item in found.columns if item.code}
    assert meant == {
        "Kreatinine µmol/l": ("LOINC//14682-9", "umol/L"),
        "Natrium": ("LOINC//2951-2", "mmol/L"),
        "Roker": ("SNOMED//77176002", None),
    }

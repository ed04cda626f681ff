"""The table of threats in the docs: forty-two rows, each with tests that are there."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "threats.md"
COLUMNS = ("#", "attacker", "tries", "must happen", "defence", "shown by")
# Rows whose defence is not whole yet. Rows leave this set; none is added.
NOT_THERE_YET = {35}
PARTIES = {
    "protocol": "protocol",
    "client": "client",
    "server": "server",
    "research": "research",
    "twin_models": "twin_models",
    "tests": "tests",
}
NAMED = re.compile(r"`(tests/[\w/]+\.py)((?:::\w+)+)`")
MODULE = re.compile(rf"`({'|'.join(PARTIES)})/(\w+)`")


def rows() -> list[list[str]]:
    """The cells of every row of the tables, headings left out."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[0].isdigit()]


@cache
def names_in(path: str) -> set[str]:
    """The tests of a file, as `::test_name` or `::TestClass::test_name`."""
    found = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(f"::{node.name}")
        elif isinstance(node, ast.ClassDef):
            inner = [item for item in node.body if isinstance(item, ast.FunctionDef)]
            found |= {f"::{node.name}::{item.name}" for item in inner}
    return {name for name in found if "::test_" in name}


def test_there_are_forty_two_rows_and_each_is_whole() -> None:
    found = rows()
    assert sorted(int(row[0]) for row in found) == list(range(1, 43))
    ragged = [row[0] for row in found if len(row) != len(COLUMNS)]
    assert ragged == []
    empty = [row[0] for row in found if not all(row)]
    assert empty == []


def test_every_table_has_the_same_columns() -> None:
    heads = [line for line in PAGE.read_text().splitlines() if line.startswith("| #")]
    assert len(heads) > 1
    assert {tuple(cell.strip() for cell in head.strip("|").split("|")) for head in heads} == {
        COLUMNS
    }


@pytest.mark.parametrize("number", range(1, 43))
def test_a_row_names_tests_that_exist(number: int) -> None:
    (row,) = [row for row in rows() if int(row[0]) == number]
    named = NAMED.findall(row[-1])
    assert named, "a row without a test shows nothing"
    absent = [path + name for path, name in named if not (ROOT / path).is_file()]
    assert absent == []
    assert [path + name for path, name in named if name not in names_in(path)] == []
    assert row[-1].count("`") == 2 * len(named), "something in backticks that is no test"


def test_modules_that_are_named_exist() -> None:
    wrong = [
        f"{row[0]}: {party}/{module}"
        for row in rows()
        for party, module in MODULE.findall(row[4])
        if not list((ROOT / PARTIES[party]).rglob(f"{module}.py"))
        and not [path for path in (ROOT / PARTIES[party]).rglob(module) if path.is_dir()]
    ]
    assert wrong == []


def test_what_is_not_there_yet_is_said_and_only_that() -> None:
    said = {int(row[0]) for row in rows() if "not there yet" in " ".join(row)}
    assert said == NOT_THERE_YET
    reasons = {int(row[0]) for row in rows() if re.search("not there yet: .{10}", " ".join(row))}
    assert reasons == NOT_THERE_YET, "with what is missing"

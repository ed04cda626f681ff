"""What is installed: every dependency has its reason, and tested versions are pinned."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def name_of(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0].lower()


def requirements() -> dict[str, set[str]]:
    """Names by extra; '' for what everybody gets. Our own extras are left out."""
    groups = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    return {
        extra: {name_of(item) for item in items} - {"fedtwin"} for extra, items in groups.items()
    }


def test_every_dependency_has_a_row_in_the_docs() -> None:
    rows = (ROOT / "docs" / "dependencies.md").read_text().lower().splitlines()
    described = {
        word for row in rows if row.startswith("|") for word in re.findall(r"[a-z0-9_-]+", row)
    }
    wanted = set().union(*requirements().values())
    assert wanted - described == set()


def test_every_dependency_is_pinned_to_the_tested_version() -> None:
    pins = {
        name_of(line)
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    wanted = set().union(*requirements().values())
    assert wanted - pins == set()


def test_each_extra_brings_what_its_party_needs_and_no_more() -> None:
    groups = requirements()
    assert "torch" in groups["client"]
    for light in ("", "server", "research"):
        assert not groups[light] & {"torch", "opacus", "duckdb", "ray"}
    assert groups["simulation"] == {"flwr"}


def test_no_path_of_a_machine_is_written_down() -> None:
    paths = re.compile(r"(?<![\w.])/(?:work|root|opt|home/[a-z]+|Users/[a-z]+)/")
    folders = (*PROJECT_FOLDERS, "tests", "docs", "scripts", "benchmarks")
    guilty = {
        f"{path.relative_to(ROOT)}: {match[0]}"
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix in {".py", ".md", ".yaml", ".txt", ""}
        for match in paths.finditer(path.read_text(errors="ignore"))
    }
    assert guilty == set()


PROJECT_FOLDERS = ("protocol", "twin_models", "client", "server", "research", "cli")

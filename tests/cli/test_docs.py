"""What the README and the guides let people type, write and run, fits the program as it is."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from fedtwin.plan_check import adds_up, cost_of
from fedtwin_client.node.policy import Policy, load_policy
from fedtwin_client.records.tables.mapping import read_mapping
from fedtwin_protocol.contract import Feature
from fedtwin_protocol.study import StudyPlan, plan_from_yaml
from fedtwin_protocol.study_learning import Aggregation, Evaluation, Model, Training
from fedtwin_protocol.study_patients import Cohort, Endpoint, IndexDate
from fedtwin_protocol.study_population import Population
from fedtwin_protocol.study_privacy import Privacy, Sites
from fedtwin_research.library import Library, read_release, read_trust
from fedtwin_research.twins.patient_file import PARTS

from .command_tree import faults

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")


def blocks(page: Path, language: str) -> list[str]:
    return [body for kind, body in _FENCE.findall(page.read_text()) if kind == language]


def commands(page: Path) -> Iterator[tuple[str, bool]]:
    """Lines that begin with `fedtwin`, and whether they are meant to be typed as they are."""
    for block in (*blocks(page, "sh"), *blocks(page, "")):
        for line in block.splitlines():
            typed = re.sub(r"^(\.venv/bin/)?(scripts/demo\b)?", _as_typed, line.strip())
            if typed.startswith("fedtwin "):
                yield typed, True
    for span in _SPAN.findall(_FENCE.sub("", page.read_text())):
        if span.startswith("fedtwin ") and "<" not in span:
            yield span, False


def _as_typed(start: re.Match[str]) -> str:
    """`scripts/demo` types `fedtwin demo`."""
    return "fedtwin demo" if start[2] else ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_line_fits_the_command_tree(page: Path) -> None:
    wrong = {line: found for line, whole in commands(page) if (found := faults(line, whole=whole))}
    assert wrong == {}


def test_command_lines_were_found_and_every_command_is_in_a_guide() -> None:
    written = " ".join(line for page in PAGES for line, _ in commands(page))
    for typed in (
        *("server init", "server invite", "server run", "server studies", "server sites"),
        *(
            "server release",
            "server revoke",
            "server sign",
            "server signers replace",
            "client log",
            "server renew",
            "server plan check",
        ),
        *("client enrol", "client check", "client policy", "client run", "client studies"),
        *("client ledger", "client left", "client report", "client records fhir"),
        *("client records view", "client records propose", "client records hl7"),
        *("client records table", "client records omop"),
        *("client studies accept", "client studies decline"),
        *("client records openmhealth", "client records apple-health", "client records glucose"),
        *("client listen", "client records live", "client records meds", "client records export"),
        *("client records codes add", "client records codes check"),
        *("client records vocabulary load", "client records vocabulary show"),
        *("client records codes propose-units", "client records codes assume-unit"),
        *("client consent import", "client consent withdraw", "client consent show"),
        *("client records genome", "client records pharmcat", "client records polygenic"),
        *("client records erase", "client keys rotate", "client keys seal"),
        *("research enrol", "research fetch", "research show", "research verify"),
        *("research audit", "research predict", "research population", "client check --privacy"),
        *("research genes", "research interactions", "research twin", "research models"),
        *("research trial", "research sample-size", "research data heart-disease"),
    ):
        assert f"fedtwin {typed}" in written or typed in _unit_files(), typed


def _unit_files() -> str:
    return " ".join(block for page in PAGES for block in blocks(page, "ini"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_units_of_systemd_start_commands_that_exist(page: Path) -> None:
    for block in blocks(page, "ini"):
        (start,) = re.findall(r"^ExecStart=\S+/(fedtwin .*)$", block, re.MULTILINE)
        assert faults(start, whole=True) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_compiles(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, page.name, "exec")


def test_the_plans_guide_runs(capsys: pytest.CaptureFixture[str]) -> None:
    for block in blocks(ROOT / "docs" / "plan.md", "python"):
        exec(compile(block, "plan.md", "exec"), {})
    assert float(capsys.readouterr().out) == 27.88


def test_the_researchers_guide_runs(
    published: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a released model of the study that the guide speaks of."""
    library = Library(tmp_path / "library")
    library.pin(read_trust(published.trust))
    library.add(read_release(published.folder), "demo")
    for block in blocks(ROOT / "docs" / "researcher.md", "python"):
        exec(compile(block, "researcher.md", "exec"), {})
    said = capsys.readouterr().out
    assert "coronary-risk-5y version 1 predicts [0.5]" in said
    assert "Asks for:" in said


def test_the_twin_of_the_readme_answers(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = blocks(ROOT / "README.md", "python")
    exec(compile(block, "README.md", "exec"), {})
    said = capsys.readouterr().out
    assert re.search(r"\d+ mg over 1\.5 h every \d+ h intravenous", said)
    assert "with what was measured" in said


@pytest.mark.parametrize("part", PARTS.values())
def test_every_field_of_a_patients_file_is_explained(part: type[BaseModel]) -> None:
    text = (ROOT / "docs" / "twin.md").read_text()
    silent = [name for name in part.model_fields if not re.search(rf"[`{{ ]{name}[`,:}}]", text)]
    assert silent == []


@pytest.mark.parametrize("page", ["plan.md", "population.md"])
def test_the_plan_of_the_guide_adds_up(tmp_path: Path, page: str) -> None:
    (block,) = blocks(ROOT / "docs" / page, "yaml")
    (tmp_path / "plan.yaml").write_text(block)
    plan = plan_from_yaml(tmp_path / "plan.yaml")
    assert adds_up(plan, cost_of(plan))


@pytest.mark.parametrize(
    ("part", "prefix"),
    [
        (StudyPlan, ""),
        (Cohort, ""),
        (IndexDate, "index."),
        (Feature, ""),
        (Endpoint, ""),
        (Model, ""),
        (Training, "training."),
        (Aggregation, "aggregation."),
        (Privacy, ""),
        (Sites, "sites."),
        (Evaluation, "evaluation."),
        (Population, "population."),
    ],
)
def test_every_field_of_a_plan_is_explained(part: type[BaseModel], prefix: str) -> None:
    text = "".join((ROOT / "docs" / page).read_text() for page in ("plan.md", "population.md"))
    silent = [name for name in part.model_fields if f"`{prefix}{name}`" not in text]
    assert [name for name in silent if name not in {"index"}] == []


def test_every_key_of_the_policy_is_explained_and_the_examples_are_in_order(
    tmp_path: Path,
) -> None:
    page = ROOT / "docs" / "policy.md"
    silent = [
        name for name in Policy.model_fields if not re.search(rf"`{name}[`.]", page.read_text())
    ]
    assert silent == []
    for block in blocks(page, "yaml"):
        (tmp_path / "policy.yaml").write_text(block)
        load_policy(tmp_path / "policy.yaml")


def test_the_mappings_of_the_guide_are_in_order(tmp_path: Path) -> None:
    found = blocks(ROOT / "docs" / "records.md", "yaml")
    assert len(found) >= 2
    for block in found:
        assert isinstance(yaml.safe_load(block), dict)
        (tmp_path / "mapping.yaml").write_text(block)
        read_mapping(tmp_path / "mapping.yaml")

"""`fedtwin research trial`, as it is typed."""

from pathlib import Path

import pytest
import yaml

from .conftest import Type


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def small(here: Path, type_in: Type, **changes: object) -> Path:
    """The shipped example with few patients and repetitions."""
    assert type_in("research", "trial", "--example", "vancomycin").status == 0
    path = here / "vancomycin.yaml"
    content = yaml.safe_load(path.read_text())
    content |= {"patients": 24, "replicates": 2, "what_if": []} | changes
    content["analysis"]["prognosis"] = None
    path.write_text(yaml.safe_dump(content))
    return path


def test_from_an_example_to_a_report(here: Path, type_in: Type) -> None:
    path = small(here, type_in)
    checked = type_in("research", "trial", path, "--check")
    assert checked.status == 0
    assert "adds up: 2 trials of 24 patients, plan " in checked.out
    assert not (here / "vancomycin").exists()
    ran = type_in("research", "trial", path, "--workers", 1)
    assert ran.status == 0, ran.err
    assert "By model" in ran.out
    assert "the report is vancomycin/report.html" in ran.out
    first = {one.name: one.read_bytes() for one in (here / "vancomycin").iterdir()}
    assert set(first) == {
        *("report.html", "arms.csv", "subgroups.csv", "effects.csv", "replicates.csv"),
        *("what_if.csv", "sample_size.csv", "plan.yaml", "manifest.json"),
    }
    again = type_in("research", "trial", here / "vancomycin" / "plan.yaml", "--out", "again",
                    "--workers", 1)  # fmt: skip
    assert again.status == 0
    assert {one.name: one.read_bytes() for one in (here / "again").iterdir()} == first


@pytest.mark.slow
def test_processes_give_the_same_bytes(here: Path, type_in: Type) -> None:
    path = small(here, type_in, patients=2000, replicates=9)
    for workers in (1, 3):
        done = type_in("research", "trial", path, "--workers", workers, "--out", str(workers))
        assert done.status == 0, done.err
    for one in (here / "1").iterdir():
        assert one.read_bytes() == (here / "3" / one.name).read_bytes()


def test_mistakes_end_with_a_sentence_and_a_way_out(here: Path, type_in: Type) -> None:
    path = small(here, type_in)
    for words, sentence in (
        ((), "or write one with 'fedtwin research trial --example tacrolimus'"),
        (
            ("--example", "aspirin"),
            "no example 'aspirin': choose tacrolimus or vancomycin or warfarin",
        ),
        (("--example", "vancomycin"), "vancomycin.yaml is there already"),
        (("nothing.yaml",), "cannot read the trial's plan nothing.yaml"),
        ((path, "--cards", "nowhere"), "nowhere; expected a folder"),
    ):
        ended = type_in("research", "trial", *words)
        assert (ended.status, "Traceback" in ended.err) == (2, False), ended.err
        assert sentence in ended.err
    (here / "mine").mkdir()
    (here / "mine" / "letter.txt").write_text("dear")
    ended = type_in("research", "trial", path, "--out", "mine", "--workers", 1)
    assert ended.status == 2
    assert "holds other things than a trial's report" in ended.err


def test_a_card_of_ones_own_takes_part(here: Path, type_in: Type) -> None:
    from fedtwin_twins.pharmacology import library

    shipped = Path(library.__file__).parent / "cards" / "vancomycin_thomson_2009.yaml"
    (here / "cards").mkdir()
    text = shipped.read_text().replace("vancomycin_thomson_2009", "vancomycin_mine_2026")
    (here / "cards" / "vancomycin_mine_2026.yaml").write_text(text)
    path = small(here, type_in)
    path.write_text(path.read_text().replace("vancomycin_thomson_2009", "vancomycin_mine_2026"))
    ended = type_in("research", "trial", path, "--check")
    assert ended.status == 2
    assert "drug.truth.model: model card is vancomycin_mine_2026" in ended.err
    assert type_in("research", "trial", path, "--check", "--cards", "cards").status == 0


def test_the_panel_of_sample_sizes(type_in: Type) -> None:
    asked = ("research", "sample-size", "--difference", 0.3, "--sd", 1, "--correlation", 0.5)
    found = type_in(*asked)
    assert found.status == 0
    (row,) = [line for line in found.out.splitlines() if "asked for" in line]
    assert [word for word in row.split() if word.isdigit()] == ["176", "176", "352"]
    ended = type_in("research", "sample-size", "--difference", 0, "--sd", 1)
    assert (ended.status, "a difference other than 0" in ended.err) == (2, True)

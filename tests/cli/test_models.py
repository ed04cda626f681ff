"""`fedtwin research models`: the list, a card in full, and a site's own folder."""

from pathlib import Path

import yaml
from typer.testing import CliRunner

from fedtwin.main import build

RUNNER = CliRunner()
CARDS = Path(__file__).parents[2] / "twin_models/fedtwin_twins/pharmacology/cards"


def run(*words: str) -> tuple[int, str]:
    found = RUNNER.invoke(build(["research"]), ["research", "models", *words])
    said = found.output + (str(found.exception) if found.exception else "")
    return found.exit_code, " ".join(said.split())


def test_the_list_names_every_card() -> None:
    code, said = run()
    assert code == 0
    for path in CARDS.glob("*.yaml"):
        assert path.stem[:12] in said


def test_a_card_in_full_shows_what_a_dose_depends_on() -> None:
    code, said = run("warfarin_hamberg_2010")
    assert code == 0
    for words in ("Clin Pharmacol Ther 2010", "variance", "open question:", "0.348", "sha256"):
        assert words in said


def test_a_card_in_full_shows_how_much_of_a_dose_comes_in_and_when() -> None:
    """Half of a dose of warfarin is S-warfarin."""
    said = run("warfarin_hamberg_2010")[1]
    route = said.partition("largest a day")[2].partition("observable")[0]
    for word in ("first_order,", "rate", "0.5", "dose"):
        assert word in route
    assert "bioavailability" in run("amlodipine_mukherjee_2018")[1]


def test_an_unknown_card_names_the_known_ones() -> None:
    code, said = run("warfarin")
    assert code != 0
    assert "warfarin_hamberg_2010" in said


def test_a_folder_of_ones_own_is_checked(tmp_path: Path) -> None:
    content = yaml.safe_load((CARDS / "vancomycin_thomson_2009.yaml").read_text())
    path = tmp_path / "vancomycin_thomson_2009.yaml"
    path.write_text(yaml.safe_dump({**content, "title": "ours"}))
    code, said = run("vancomycin_thomson_2009", "--folder", str(tmp_path))
    assert code == 0
    assert "in place of the shipped one" in said
    path.write_text(yaml.safe_dump({**content, "version": "x", "effect": "magic"}))
    code, said = run("--folder", str(tmp_path))
    assert code != 0
    assert "vancomycin_thomson_2009.yaml: version" in said
    assert "vancomycin_thomson_2009.yaml: effect" in said


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    code, said = run("--folder", str(tmp_path / "nowhere"))
    assert code != 0
    assert "expected a folder" in said

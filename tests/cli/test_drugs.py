"""`fedtwin research genes` and `interactions`, and the guide that speaks of them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedtwin_twins.pharmacology.interactions import built_in_interactions
from fedtwin_twins.pharmacology.recommendations import built_in_recommendations

Type = Callable[..., Any]
GUIDE = Path(__file__).parents[2] / "docs" / "pharmacogenes.md"


def test_genes_are_answered_with_strength_source_and_date(type_in: Type) -> None:
    words = ("research", "genes", "azathioprine", "TPMT=*1/*3A", "NUDT15=*1/*3")
    today = type_in(*words)
    assert today.status == 0
    assert "starting dose: 20 to 50 %" in today.out
    assert "Moderate; PMID 41618934, since 2026-02-03; read" in today.out
    before = type_in(*words, "--as-of", "2023-01-01")
    assert "starting dose: 30 to 80 %" in before.out


def test_what_is_from_memory_says_so(type_in: Type) -> None:
    pair = type_in("research", "genes", "thioguanine", "TPMT=NM", "NUDT15=NM").out
    assert "from memory, not checked" in " ".join(pair.split())
    other = type_in("research", "interactions", "amlodipine", "itraconazole").out
    assert "memory" in other
    assert "checked" in other
    card = type_in("research", "models", "busulfan_mccune_2014").out
    assert "not checked: The RxNorm code 1828: from memory" in " ".join(card.split())


def test_effects_on_a_model_stand_beside(type_in: Type) -> None:
    ended = type_in(
        *("research", "genes", "tacrolimus", "CYP3A5=*1/*3"),
        *("--model", "tacrolimus_woillard_2011"),
    )
    assert "starting dose: 150 to 200 %" in ended.out
    assert "clearance x 2 (measured, 6 expressers of 73 patients)" in ended.out


def test_warfarin_follows_the_chart(type_in: Type, refused: Type) -> None:
    words = ("research", "genes", "warfarin", "CYP2C9=*1/*8", "VKORC1=A/G")
    ended = type_in(*words, "--african-ancestry", "--minor-alleles-tested")
    assert "all together: 70 to 85 % of the algorithm's dose" in ended.out
    assert "--no-african-ancestry" in refused(*words).err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("codein", "CYP2D6=PM"), "did you mean codeine"),
        (("codeine", "CYP2D6"), "expected GENE=RESULT"),
        (("codeine", "CYP2D6=*1/*4"), "copy number is missing"),
        (("codeine", "CYP2D6=*1/*999", "--copies", "2"), "allele is *999"),
        (("codeine", "CYP2D6=PM", "--as-of", "soon"), "Invalid isoformat"),
        (("codeine", "CYP2D6=PM", "--table", "absent.csv"), "absent.csv cannot be read"),
        (("codeine", "CYP2D6=PM", "--model", "mine"), "genes have no numbers for this drug"),
    ],
)
def test_wrong_words_are_refused_with_a_sentence(
    words: tuple[str, ...], says: str, refused: Type
) -> None:
    assert says in refused("research", "genes", *words).err


def test_interactions_say_what_is_not_known(type_in: Type, refused: Type) -> None:
    ended = type_in("research", "interactions", "simvastatin", "itraconazole", "metformin")
    assert "contraindicated" in ended.out
    assert "not the same as no interaction: " in ended.out
    assert "itraconazole on metformin" in ended.out
    assert "at least two different drugs" in refused("research", "interactions", "warfarin").err
    assert (
        "absent.csv cannot be read"
        in refused(
            *("research", "interactions", "warfarin", "amiodarone", "--table", "absent.csv")
        ).err
    )


def test_the_guide_runs_and_its_table_loads(
    type_in: Type, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = GUIDE.read_text()
    for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        exec(compile(block, GUIDE.name, "exec"), {})
    said = capsys.readouterr().out
    assert "{'clearance': 2.0}" in said
    assert "71 mL/min/1.73 m2" in said
    assert "acute kidney injury: 40 %" in said
    (table,) = re.findall(r"^```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "new.csv").write_text(table)
    ended = type_in(*("research", "genes", "codeine", "CYP2D6=PM"), "--table", tmp_path / "new.csv")
    assert "Avoid codeine." in ended.out
    assert "table of 2027-03-01" in ended.out


def test_the_guide_counts_right() -> None:
    text = GUIDE.read_text()
    assert f"of {len(built_in_recommendations().drugs)} drugs" in text
    assert f"{len(built_in_interactions().pairs)} pairs of drugs" in text
    assert str(built_in_recommendations().origin.version) in text

"""Wrong input to a researcher's commands and to the demo: a sentence, and nothing is changed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest

import fedtwin_research.datasets
from fedtwin_protocol.release import LISTED, STATEMENT
from fedtwin_research.library import Library, read_release, read_trust

Type = Callable[..., Any]
STUDY = "coronary-risk-5y"


@pytest.fixture
def library(published: Any, tmp_path: Path) -> Path:
    """A library that holds the published release."""
    library = Library(tmp_path / "library")
    library.pin(read_trust(published.trust))
    library.add(read_release(published.folder), "demo")
    return tmp_path / "library"


def test_a_whole_release_is_verified_in_a_folder_and_in_the_library(
    published: Any, library: Path, type_in: Type
) -> None:
    for words in ((published.folder, "--trust", published.trust), (STUDY,)):
        ended = type_in("research", "verify", *words)
        assert ended.status == 0
        assert f"verified: {STUDY} version 1" in ended.out
    assert "Predicts coronary heart disease" in type_in("research", "show", STUDY).out


@pytest.mark.parametrize("name", [*LISTED, STATEMENT])
def test_a_release_with_one_file_altered_absent_or_beside_it(
    published: Any, library: Path, refused: Type, name: str
) -> None:
    """Each file in turn, in a folder and in the library; opening it refuses it too."""
    (inside,) = library.glob(f"releases/demo/{STUDY}/*/{name}")
    for folder, words in (
        (published.folder, (published.folder, "--trust", published.trust)),
        (inside.parent, (STUDY,)),
    ):
        file = folder / name
        whole = file.read_bytes()
        middle = len(whole) // 2
        for altered in (
            whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
            whole[:middle],
            b"",
        ):
            file.write_bytes(altered)
            assert refused("research", "verify", *words).err
        file.unlink()
        assert name in refused("research", "verify", *words).err
        file.write_bytes(whole)
        (folder / "more.pkl").write_bytes(b"more")
        assert "more.pkl" in refused("research", "verify", *words).err
        (folder / "more.pkl").unlink()
    inside.write_bytes(inside.read_bytes()[:-9])
    refused("research", "show", STUDY)


def test_a_root_of_trust_that_is_none_or_anothers(
    published: Any, tmp_path: Path, refused: Type
) -> None:
    def verify(trust: Path) -> str:
        return str(refused("research", "verify", published.folder, "--trust", trust).err)

    assert "cannot read the trust root" in verify(tmp_path / "absent.json")
    assert "holds no trust root" in verify(published.folder / "card.html")
    root = json.loads(published.trust.read_bytes())
    stranger = {**root, "keys": [root["keys"][0]], "threshold": 1}
    stranger["keys"][0] = {**root["keys"][0], "public": "A" * 43 + "="}
    (tmp_path / "other.json").write_text(json.dumps(stranger))
    assert "expected 1 signatures" in verify(tmp_path / "other.json")


def test_names_and_folders_that_hold_nothing(published: Any, tmp_path: Path, refused: Type) -> None:
    assert "fedtwin research fetch unheard-of" in refused("research", "show", "unheard-of").err
    assert "no release of 'unheard-of'" in refused("research", "verify", "unheard-of").err
    words = ("research", "verify", tmp_path / "absent", "--trust", published.trust)
    assert "cannot read the release" in refused(*words).err
    words = ("research", "verify", published.trust, "--trust", published.trust)
    assert "Not a directory" in refused(*words).err


@pytest.mark.parametrize("settings", [b"\xff\xfe", b"[]", b"{}", b'{"coordinator": 1', b""])
def test_nobody_is_enrolled_or_the_settings_are_damaged(
    tmp_path: Path, refused: Type, settings: bytes
) -> None:
    said = refused("research", "fetch", "--home", tmp_path).err
    assert "run 'fedtwin research enrol' first" in said
    (tmp_path / "research.json").write_bytes(settings)
    assert "enrol again" in refused("research", "fetch", "--home", tmp_path).err


def test_the_heart_disease_set_without_a_network(
    tmp_path: Path, refused: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(address: str) -> bytes:
        raise URLError("no route to host")

    monkeypatch.setattr(fedtwin_research.datasets, "open_address", nowhere)
    folder = tmp_path / "heart"
    said = refused("research", "data", "heart-disease", "--folder", folder).err
    for part in ("no route to host", "processed.va.data", "SHA-256", "--from DIR", str(folder)):
        assert part in said
    assert not folder.exists()


def test_copies_of_the_heart_disease_set_that_are_not_right(tmp_path: Path, refused: Type) -> None:
    words = ("research", "data", "heart-disease", "--folder", tmp_path / "new")
    assert "cannot read" in refused(*words, "--from", tmp_path).err
    (tmp_path / "processed.cleveland.data").write_text("63,1,1\n")
    assert "is not the file that was published" in refused(*words, "--from", tmp_path).err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("words", [("demo",), ("demo", "run")])
def test_a_demo_that_cannot_be_played_says_so_at_once(
    tmp_path: Path, refused: Type, type_in: Type, words: tuple[str, ...]
) -> None:
    lacks = refused(*words, "--heart-disease", tmp_path / "absent").err
    assert "lacks processed.cleveland.data" in lacks
    assert "fedtwin research data heart-disease" in lacks
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert "is not empty" in refused(*words, "--folder", tmp_path / "full").err
    assert "is a file" in refused(*words, "--folder", tmp_path / "full" / "file").err
    assert "cannot write /proc/demo" in refused(*words, "--folder", "/proc/demo").err
    assert "cannot be written" in refused(*words, "--json", tmp_path / "absent" / "t.json").err
    assert type_in(*words, "--seed", "-1").status == 2


def test_a_fault_of_the_program_is_kept_whole_and_told_in_a_sentence(
    tmp_path: Path, type_in: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("an unforeseen thing")

    monkeypatch.setattr(fedtwin_research.datasets, "fetch_heart_disease", broken)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    ended = type_in("research", "data", "heart-disease")
    assert ended.status == 70
    assert "Traceback" not in ended.err
    (report,) = tmp_path.glob("fedtwin-fault-*.txt")
    assert str(report) in ended.err
    assert "research data heart-disease" in report.read_text()
    assert "an unforeseen thing" in report.read_text()
    assert report.stat().st_mode & 0o077 == 0

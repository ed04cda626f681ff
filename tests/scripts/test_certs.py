"""The development CA that `scripts/certs.py` writes."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedtwin_protocol.credentials import load_credentials
from fedtwin_protocol.errors import IdentityError
from fedtwin_protocol.identity import certificates_from_pem

ROOT = Path(__file__).parents[2]
FILES = {
    "offline/root.key",
    "offline/root.pem",
    "authority/credentials.pem",
    "coordinator/credentials.pem",
    "site/credentials.pem",
    "researcher/credentials.pem",
}


def certs(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "certs.py"), *options],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    done = certs("--folder", str(folder), "--consortium", "heart-north", "--site", "st-olav")
    assert done.returncode == 0, done.stderr
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_every_file_is_there_and_readable_by_its_owner_only(written: Path) -> None:
    assert set(content(written)) == FILES
    assert {(written / name).stat().st_mode & 0o777 for name in FILES} == {0o600}


@pytest.mark.parametrize(
    ("party", "uri"),
    [
        ("coordinator", "spiffe://heart-north/coordinator"),
        ("site", "spiffe://heart-north/site/st-olav"),
        ("researcher", "spiffe://heart-north/researcher/first-researcher"),
    ],
)
def test_leaves_hold_for_the_product_and_for_a_day(written: Path, party: str, uri: str) -> None:
    credentials = load_credentials(written / party)
    now = datetime.now(UTC)
    credentials.check(now)
    assert credentials.identity.uri == uri
    assert timedelta(hours=23) < credentials.identity.not_after - now <= timedelta(hours=24)
    with pytest.raises(IdentityError, match="expired"):
        credentials.check(now + timedelta(hours=25))


def test_the_issuing_ca_stands_under_the_offline_root(written: Path) -> None:
    (root,) = certificates_from_pem((written / "offline" / "root.pem").read_bytes())
    issuing, found = certificates_from_pem((written / "authority/credentials.pem").read_bytes())
    issuing.verify_directly_issued_by(root)
    assert found == root


def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    assert certs("--folder", str(tmp_path)).returncode == 0
    before = content(tmp_path)
    again = certs("--folder", str(tmp_path))
    assert (again.returncode, again.stdout) == (2, "")
    assert "exists already: add --force" in again.stderr
    assert content(tmp_path) == before
    assert certs("--folder", str(tmp_path), "--force").returncode == 0
    after = content(tmp_path)
    assert set(after) == FILES
    assert all(after[name] != before[name] for name in FILES)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--hours", "337"), "at most 14 days"),
        (("--site", "St Olav"), "expected a name of 2 to 41 lower-case letters"),
        (("--address", "localhost:8443"), "without a port"),
        (("--consortium", "a/b"), "expected a consortium's name"),
    ],
)
def test_a_mistake_ends_in_a_sentence_and_loses_nothing(
    tmp_path: Path, options: tuple[str, ...], sentence: str
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "credentials.pem").write_text("the old one")
    done = certs("--folder", str(tmp_path), "--force", *options)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert content(tmp_path) == {"site/credentials.pem": b"the old one"}


def test_help_shows_how_to_call_it() -> None:
    done = certs("--help")
    assert done.returncode == 0
    assert "python scripts/certs.py --force" in done.stdout


def test_what_it_writes_is_ignored_by_git_and_the_page_is_not() -> None:
    paths = [f"certs/{name}" for name in sorted(FILES)]
    done = subprocess.run(
        ["git", "check-ignore", *paths, "certs/README.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == paths


def test_the_page_names_every_file() -> None:
    page = (ROOT / "certs" / "README.md").read_text()
    assert [name for name in FILES if f"`{name}`" not in page] == []

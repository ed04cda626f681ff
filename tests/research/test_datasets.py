"""A data set is believed by its checksums, from the network or from a folder."""

from pathlib import Path
from urllib.error import URLError

import pytest

from fedtwin_protocol.errors import ConfigurationError
from fedtwin_research.datasets import HEART_DISEASE, NOTICE, fetch_heart_disease, open_address

SHARED = Path(__file__).parents[2] / "../shared/data/uci_heart"
needs_copies = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the UCI heart disease files are not beside this checkout"
)


def no_network(address: str) -> bytes:
    raise URLError(f"no way to {address}")


def never(address: str) -> bytes:
    raise AssertionError(f"asked for {address}")


@needs_copies
def test_copies_are_verified_and_then_no_network_is_needed(tmp_path: Path) -> None:
    files = fetch_heart_disease(tmp_path / "data", opener=never, copies=SHARED)
    assert [path.name for path in files] == [file.name for file in HEART_DISEASE]
    again = fetch_heart_disease(tmp_path / "data", opener=never)
    assert again == files


@needs_copies
def test_files_from_their_addresses_are_kept(tmp_path: Path) -> None:
    asked = []

    def archive(address: str) -> bytes:
        asked.append(address)
        return (SHARED / address.rpartition("/")[2]).read_bytes()

    (first, *_) = fetch_heart_disease(tmp_path, opener=archive)
    assert first.read_bytes() == (SHARED / first.name).read_bytes()
    assert all(address.startswith("https://archive.ics.uci.edu/") for address in asked)


def test_a_changed_file_is_refused_with_both_checksums_and_not_kept(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"(?s)processed\.cleveland.*a74b7efa.*found 5 b"):
        fetch_heart_disease(tmp_path, opener=lambda _: b"hello")
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_the_way_out_is_told_in_full(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        fetch_heart_disease(tmp_path, opener=no_network)
    text = str(caught.value)
    for file in HEART_DISEASE:
        assert file.address in text
        assert file.sha256 in text
        assert file.md5 in text
    assert str(tmp_path) in text
    assert "--from DIR" in text


def test_a_missing_copy_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read .*processed\.cleveland\.data"):
        fetch_heart_disease(tmp_path / "data", opener=never, copies=tmp_path)


def test_only_https_is_opened() -> None:
    with pytest.raises(ConfigurationError, match="https"):
        open_address("file:///etc/passwd")


def test_the_licence_and_the_authors_are_named() -> None:
    assert "CC BY 4.0" in NOTICE
    for name in ("Janosi", "Steinbrunn", "Pfisterer", "Detrano"):
        assert name in NOTICE

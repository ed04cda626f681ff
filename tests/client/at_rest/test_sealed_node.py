"""A thief of the disk can read nothing of a node's folder, and nothing changed is believed."""

import shutil
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fedtwin_client.at_rest.database import ERRORS, connect
from fedtwin_client.at_rest.files import read_whole
from fedtwin_client.at_rest.keyring import Keyring, keyring_of, open_keyring
from fedtwin_client.node.home import NodeHome
from fedtwin_client.node.ledger import Ledger
from fedtwin_client.node.sealing import make_keys, read_secret, seal
from fedtwin_client.records.pseudonyms import IdentityMap
from fedtwin_client.store.consents import Consents
from fedtwin_client.store.quarantine import lines_of, names
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import ConfigurationError, FedtwinError, RecordError


def put_aside(store: Path) -> Iterator[str]:
    """What is in quarantine, and how its imports read."""
    for path in sorted((store / "quarantine").glob("*.json")):
        yield read_whole(path, keyring_of(store)).decode()
    for name in names(store):
        yield from lines_of(store, name)


def read_all(home: NodeHome) -> tuple[Any, ...]:
    """Everything that the node can read of its patients."""
    with Consents(home.records) as consents:
        objections = consents.objections()
    aside = list(put_aside(home.records))
    return (
        Timeline.open(home.records).events().to_pylist(),
        sorted(IdentityMap(home.records / "identities.sqlite").addresses().items()),
        objections,
        aside,
        Timeline.open(home.records).codes(),
    )


def read_every_page(home: NodeHome) -> None:
    """Also the pages of databases that no question asks for."""
    read_all(home)
    read_secret(home, keyring_of(home.folder))
    for path in home.records.glob("*.sqlite"):
        with closing(connect(path)) as db:
            if db.execute("PRAGMA quick_check").fetchone()[0] != "ok":
                raise RecordError(f"{path} is damaged")


def test_nothing_planted_can_be_read_in_any_file(node: Any) -> None:
    """And the same search finds the marks where nothing is encrypted."""
    node.seal()
    node.fill()
    Ledger(node.home.ledger_file).shut()
    assert node.planted() == []
    events, addresses, objections, aside, codes = read_all(node.home)
    assert (len(events), len(addresses), objections, len(codes)) == (60, 60, 3, 1)
    assert sum("planted" in line for line in aside) >= 1


def test_the_search_finds_what_is_not_encrypted(node: Any) -> None:
    node.fill()
    found = " ".join(node.planted())
    for place in ("identities.sqlite", "events/", "quarantine/"):
        assert place in found


def test_staging_and_the_write_ahead_log_hold_nothing_while_an_import_runs(
    node: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedtwin_client.store import imports

    node.seal()
    seen: list[str] = []
    whole = imports.take_over

    def look(*args: Any, **options: Any) -> Any:
        staged = list((node.home.records / "staging").iterdir())
        assert {path.name.partition("-")[0] for path in staged} == {"events", "versions"}
        seen.append("looked")
        assert node.planted() == []
        return whole(*args, **options)

    monkeypatch.setattr(imports, "take_over", look)
    node.fill()
    assert seen == ["looked"]


def test_encrypted_records_say_the_same_as_plain_ones(node: Any, tmp_path: Path) -> None:
    node.fill()
    plain = read_all(node.home)
    node.seal()
    seal(node.home)
    assert node.planted() == []
    assert read_all(node.home) == plain
    node.fill(first=40)
    assert len(read_all(node.home)[0]) == 100


def test_the_keys_lie_outside_and_are_private(node: Any) -> None:
    node.seal()
    assert not node.key.is_relative_to(node.home.folder)
    assert stat.S_IMODE(node.key.stat().st_mode) == 0o600
    keyring = open_keyring(node.home.folder)
    secrets = [node.key.read_bytes(), *keyring.keys.values()]
    assert node.planted(secrets) == []
    assert not any(secret.hex() in repr(keyring) for secret in secrets)
    assert Keyring.from_bytes(keyring.to_bytes()) == keyring
    with pytest.raises(ConfigurationError, match="outside"):
        make_keys(node.home, str(node.home.folder / "node.key"))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("another key", "put the right key file back"),
        ("no key", "without it nothing of this node can be read"),
        ("short key", "expected 32 bytes, found 5"),
        ("open to others", "chmod 600"),
        ("no line in node.yaml", "names no key_file"),
        ("damaged keyring", "damaged"),
        ("changed keyring", "was changed"),
        ("no keyring", "has no keyring.json"),
    ],
)
def test_a_wrong_or_missing_key_is_a_sentence(node: Any, fault: str, words: str) -> None:
    node.seal()
    node.fill()
    keyring = node.home.folder / "keyring.json"
    if fault == "another key":
        node.key.write_bytes(b"k" * 32)
    elif fault == "no key":
        node.key.unlink()
    elif fault == "short key":
        node.key.write_bytes(b"short")
    elif fault == "open to others":
        node.key.chmod(0o644)
    elif fault == "no line in node.yaml":
        text = node.home.settings_file.read_text()
        node.home.settings_file.write_text(text.replace("key_file", "other_file"))
    elif fault == "damaged keyring":
        keyring.write_text("{")
    elif fault == "changed keyring":
        text = keyring.read_text()
        box = text.rpartition('"')[0].rpartition('": "')[2].partition('"')[0]
        keyring.write_text(text.replace(box, "A" * 12 + box[12:]))
    else:
        keyring.unlink()
    for look in (
        lambda: IdentityMap(node.home.records / "identities.sqlite"),
        lambda: Timeline.open(node.home.records).events(),
        lambda: Consents(node.home.records),
    ):
        with pytest.raises(FedtwinError, match=words):
            look()


def test_a_lost_keyring_is_never_replaced_by_a_new_one(node: Any) -> None:
    node.seal()
    node.fill()
    (node.home.folder / "keyring.json").unlink()
    with pytest.raises(ConfigurationError, match="restore the folder as a whole"):
        make_keys(node.home)


def test_a_key_from_systemd_is_read_from_its_folder(
    node: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    node.seal()
    handed = tmp_path / "credentials"
    handed.mkdir()
    shutil.copy(node.key, handed / "fedtwin")
    (handed / "fedtwin").chmod(0o440)
    text = node.home.settings_file.read_text()
    node.home.settings_file.write_text(text.replace(str(node.key), "credential:fedtwin"))
    with pytest.raises(ConfigurationError, match="LoadCredential"):
        open_keyring(node.home.folder)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(handed))
    assert open_keyring(node.home.folder).current == "k1"


@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_a_flipped_bit_is_refused_in_every_file(node: Any, where: str) -> None:
    """In each file that holds patients, at its beginning, its middle and its end."""
    node.seal()
    node.fill()
    read_all(node.home)
    store = node.home.records
    files = [
        *sorted((store / "events").iterdir())[:2],
        *(store / "quarantine").iterdir(),
        *sorted(store.glob("*.sqlite")),
        node.home.folder / "pseudonym.key",
    ]
    (node.home.folder / "pseudonym.key").write_bytes(
        open_keyring(node.home.folder).close(b"p" * 32, "pseudonym.key").encode()
    )
    for path in files:
        whole = path.read_bytes()
        at = {"first": 20, "middle": len(whole) // 2, "last": len(whole) - 20}[where]
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises((FedtwinError, *ERRORS)):
            read_every_page(node.home)
        path.write_bytes(whole)
    read_every_page(node.home)


def test_files_cannot_stand_in_one_anothers_place(node: Any) -> None:
    """Nor can a plain file stand where all are encrypted."""
    node.seal()
    node.fill()
    first, second = sorted((node.home.records / "events").iterdir())[:2]
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)
    with pytest.raises(FedtwinError):
        Timeline.open(node.home.records).events()
    first.write_bytes(one)
    second.write_bytes(other)
    shutil.copy(node.home.records / "consents.sqlite", node.home.records / "identities.sqlite")
    with pytest.raises(FedtwinError):
        IdentityMap(node.home.records / "identities.sqlite")
    import sqlite3

    plain = node.home.folder / "ledger.sqlite"
    sqlite3.connect(plain).execute("CREATE TABLE t (a)").connection.close()
    plain.chmod(0o600)
    with pytest.raises(FedtwinError, match="is not encrypted, although"):
        Ledger(plain)

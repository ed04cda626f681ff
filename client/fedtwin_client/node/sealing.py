"""Encrypting a node's folder, and giving it new keys; a kill at any moment loses nothing.

Both are one procedure: `seal` brings every file under the newest data key. It may be cut off
anywhere and run again; until it is through, the keyring holds every key that some file still needs.

A rotation makes a new site key beside the old one (`KEYFILE.next`) and a new data key, writes the
keyring so that either site key opens it, seals, and only then puts the new site key in the old
one's place. Afterwards nothing that was copied before can be read with today's site key, and what
was encrypted since cannot be read with the old one.
"""

import os
from pathlib import Path
from typing import Final

import yaml

from fedtwin_client.at_rest import database, files
from fedtwin_client.at_rest.boxes import fresh_key
from fedtwin_client.at_rest.keyring import (
    CREDENTIAL,
    FILE,
    Keyring,
    files_of,
    fingerprint,
    key_file,
    open_keyring,
    read_file,
    read_site_key,
    unlocked,
    with_fresh_key,
    write_file,
)
from fedtwin_client.node.home import NodeHome
from fedtwin_client.records.images.store import image_files
from fedtwin_protocol.credentials import read_private, write_atomically
from fedtwin_protocol.errors import ConfigurationError

_NEXT: Final = ".next"
_LONG_FILES: Final = (
    ("records/quarantine", "*.ndjson"),
    ("records/quarantine", "*.json"),
    ("records/downloads", "*/*.*json"),
    ("fhir", "*.key.pem"),
    ("fhir", "*.json"),
    ("fhir", "*/*.json"),
)
_SECRET: Final = "pseudonym.key"  # noqa: S105 - a file's name


def default_key_file(folder: Path) -> Path:
    """Where the site key goes if nobody says: beside the node's folder, never in it."""
    place = folder.resolve()
    return place.with_name(f"{place.name}.key")


def make_keys(home: NodeHome, named: str | None = None) -> Path:
    """Give a node that has none a site key and a keyring; its files are encrypted by `seal`.

    Args:
        home: a node's folder with its node.yaml.
        named: the site key's place, as in node.yaml; none: what stands there, or the default. A
            key that lies there already is used.

    Returns:
        Where the site key lies.

    Raises:
        ConfigurationError: the place lies in the node's folder, or cannot be written or read; or
            files are encrypted and the keyring is gone.
    """
    if not (home.folder / FILE).exists():
        _refuse_lost_keyring(home.folder)
    named = named or home.settings().key_file or str(default_key_file(home.folder))
    _write_key_file(home, named)
    path = key_file(home.folder)
    assert path is not None
    if not named.startswith(CREDENTIAL):
        _refuse_inside(home.folder, path)
        if not path.exists():
            write_atomically(path, fresh_key())
    site_key = read_site_key(path)
    if not (home.folder / FILE).exists():
        empty = not any(files_of(home.folder, "*.sqlite")) and not home.records.exists()
        write_file(home.folder, with_fresh_key(None, complete=empty), (site_key,))
    return path


def needs_sealing(folder: Path) -> bool:
    """Whether something is still to be encrypted, or a rotation is not through."""
    if not (folder / FILE).exists():
        return True
    found = read_file(folder)
    path = key_file(folder)
    waiting = path is not None and _next_to(path).exists()
    return (
        waiting
        or not found.complete
        or len(found.keys) > 1
        or any(len(key.boxes) > 1 for key in found.keys)
    )


def seal(home: NodeHome, *, take_plain: bool = False) -> None:
    """Bring every file under the newest data key, and drop the older ones.

    Args:
        home: the node's folder; the caller holds its lock, so that no node runs.
        take_plain: also encrypt plain files in a folder where everything was encrypted, which are
            refused otherwise.

    Raises:
        ConfigurationError: the site key is not at hand, or another process holds a file.
        RecordError: the records cannot be written.
        LedgerError: a database cannot be written.
    """
    if take_plain:
        opened = read_file(home.folder).model_copy(update={"complete": False})
        write_atomically(home.folder / FILE, opened.model_dump_json(indent=1).encode())
    keyring = open_keyring(home.folder)
    for path in files_of(home.folder, "*.sealing"):
        path.unlink()
    for path in files_of(home.folder, "*.sqlite"):
        _seal_database(path, keyring)
    _seal_records(home.records, keyring)
    # What is half fetched is fetched again: a file that is not closed cannot be sealed anew.
    for path in (home.records / "downloads").glob("*/*.part"):
        path.unlink()
    for folder, pattern in _LONG_FILES:
        for path in sorted((home.folder / folder).glob(pattern)):
            _seal_file(path, keyring)
    for path in image_files(home.records):
        _seal_file(path, keyring)
    if (home.folder / _SECRET).exists():
        _keep_secret(home, read_secret(home, keyring), keyring)
    _finish(home.folder, keyring)


def rotate(home: NodeHome, new_key: Path | None = None) -> str:
    """New keys for everything; a rotation that was cut off is finished instead.

    Args:
        home: the node's folder; the caller holds its lock.
        new_key: a site key made elsewhere, to be put in the old one's place by hand; none: one is
            made, and takes the old one's place.

    Returns:
        A sentence.

    Raises:
        ConfigurationError: a key is not at hand, or no new one can be put in its place.
    """
    path = key_file(home.folder)
    if path is None or not (home.folder / FILE).exists():
        raise ConfigurationError(
            f"{home.folder} is not encrypted yet: run 'fedtwin client keys seal'"
        )
    if needs_sealing(home.folder):
        seal(home)
        return "a rotation that was cut off is finished"
    old = read_site_key(path)
    if new_key is None:
        if str(home.settings().key_file).startswith(CREDENTIAL):
            raise ConfigurationError(
                "the site key comes from systemd, which this command cannot change: make a new "
                "key file, name it with --new-key, then make it the credential"
            )
        write_atomically(_next_to(path), fresh_key())
    fresh = read_site_key(new_key or _next_to(path))
    keyring = with_fresh_key(open_keyring(home.folder), complete=True)
    write_file(home.folder, keyring, (old, fresh))
    seal(home)
    if new_key is None:
        return f"everything is encrypted anew; {path} holds the new site key: keep a copy of it"
    return (
        f"everything is encrypted anew; until the node starts with {new_key} as its site key the "
        "old one opens it, too"
    )


def keys_in_words(home: NodeHome) -> str:
    """Where the site key is, and whether everything is encrypted.

    Raises:
        ConfigurationError: nothing is encrypted, or the site key does not open what is.
    """
    path = key_file(home.folder)
    if path is None or not (home.folder / FILE).exists():
        raise ConfigurationError(
            "the node's files are not encrypted: start the node, or run 'fedtwin client keys seal'"
        )
    open_keyring(home.folder)
    if needs_sealing(home.folder):
        raise ConfigurationError(
            "not everything is encrypted with the newest keys yet: start the node, or run "
            "'fedtwin client keys seal'"
        )
    return f"all files are encrypted; site key {fingerprint(read_site_key(path))} in {path}"


def read_secret(home: NodeHome, keyring: Keyring | None) -> bytes:
    """The secret that pseudonyms are made with.

    Raises:
        IdentityError: there is none, or it is open to others.
        ConfigurationError: it does not open with this node's keys.
    """
    path = home.folder / _SECRET
    data = read_private(path, f"there is no pseudonym key at {path}")
    if len(data) == 32 or keyring is None:
        return data
    return keyring.open(data.decode("ascii", "replace"), _SECRET)


def make_secret(home: NodeHome, keyring: Keyring | None) -> None:
    """Make the secret that pseudonyms are made with, once."""
    if not (home.folder / _SECRET).exists():
        _keep_secret(home, os.urandom(32), keyring)


def _keep_secret(home: NodeHome, secret: bytes, keyring: Keyring | None) -> None:
    data = secret if keyring is None else keyring.close(secret, _SECRET).encode()
    write_atomically(home.folder / _SECRET, data)


def _seal_database(path: Path, keyring: Keyring) -> None:
    try:
        database.seal_database(path, keyring)
    except database.ERRORS as error:
        raise ConfigurationError(
            f"{path} cannot be encrypted ({error}); it is what it was. Check the disk, or restore "
            "the file from a backup, then try again"
        ) from error


def _seal_records(store: Path, keyring: Keyring) -> None:
    """Write the timelines anew, unless all of them are under the newest key."""
    if not store.exists():
        return
    from fedtwin_client.store.commit import rewrite  # noqa: PLC0415 - DuckDB, which the agent
    from fedtwin_client.store.locking import clear, lock_store  # noqa: PLC0415 - itself does not
    from fedtwin_client.store.manifest import read_manifest  # noqa: PLC0415 - load

    with lock_store(store):
        manifest = read_manifest(store)
        if manifest is None:
            return
        mark = f"{keyring.current}:"
        listed = (*manifest.files, *manifest.versions)
        if any(not (file.key or "").startswith(mark) for file in listed):
            manifest = rewrite(store, manifest, keyring, without=None)
        clear(store, manifest)


def _seal_file(path: Path, keyring: Keyring) -> None:
    """Write a quarantined or image file anew; what was cut off by a kill before stays so."""
    if files.is_sealed(path):
        pieces = list(files.read_sealed(path, keyring))
    else:
        pieces = [path.read_bytes()]
    draft = path.with_name(f"{path.name}.sealing")
    draft.unlink(missing_ok=True)
    writer = files.SealedWriter(draft, keyring, name=path.name)
    for piece in pieces:
        writer.write(piece)
    writer.close()
    draft.replace(path)


def _finish(folder: Path, keyring: Keyring) -> None:
    """Keep the newest data key alone, under the newest site key that is at hand."""
    path = key_file(folder)
    assert path is not None
    found = read_file(folder)
    newest = list(found.keys[-1].boxes)[-1]
    only = Keyring(keys={keyring.current: keyring.keys[keyring.current]}, complete=True)
    site_key = read_site_key(path)
    waiting = _next_to(path)
    if fingerprint(site_key) != newest:
        if not waiting.exists() or fingerprint(read_site_key(waiting)) != newest:
            kept = found.model_copy(update={"keys": found.keys[-1:], "complete": True})
            write_atomically(folder / FILE, kept.model_dump_json(indent=1).encode())
            return  # the new site key is elsewhere, and is still to be put in its place
        unlocked(found, read_site_key(waiting), waiting)
        waiting.replace(path)
        site_key = read_site_key(path)
    waiting.unlink(missing_ok=True)
    write_file(folder, only, (site_key,))


def _write_key_file(home: NodeHome, named: str) -> None:
    """Write the site key's place into node.yaml, leaving the rest as it is."""
    settings = home.settings()
    if settings.key_file == named:
        return
    changed = settings.model_copy(update={"key_file": named})
    text = yaml.safe_dump(changed.model_dump(mode="json"), sort_keys=False)
    write_atomically(home.settings_file, text.encode())


def _refuse_lost_keyring(folder: Path) -> None:
    for path in files_of(folder, "*.sqlite"):
        if path.stat().st_size and not database.is_plain(path):
            raise ConfigurationError(
                f"{path} is encrypted or damaged, and {folder} has no keyring.json: restore the "
                "folder as a whole from a backup; with new keys nothing of it could be read"
            )


def _refuse_inside(folder: Path, path: Path) -> None:
    if path.resolve().is_relative_to(folder.resolve()):
        raise ConfigurationError(
            f"the site key {path} would lie in the node's folder, whose backups it must not be "
            "in: name a place outside it"
        )


def _next_to(path: Path) -> Path:
    return path.with_name(path.name + _NEXT)

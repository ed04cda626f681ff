"""The node's keys: one outside its folder, which opens those inside.

The *site key* is a file that `key_file` in node.yaml names: 32 random bytes, outside the folder and
its backups. `keyring.json` in the folder holds the *data keys*, each in a box under the site key,
and each is good for:

- databases: a key derived for each file's name;
- tables: a random key for each file, in a box in the store's manifest;
- other files: a key derived for their purpose.

Only the newest data key seals; older ones open what was sealed before a rotation, until everything
is sealed anew. A folder without a keyring is not encrypted. Keys never stand in the environment or
on a command line; a training worker is handed them over its pipe.
"""

import base64
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from fedtwin_client.at_rest.boxes import (
    KEY_BYTES,
    BoxError,
    close_box,
    derived,
    fresh_key,
    open_box,
)
from fedtwin_protocol.credentials import write_atomically
from fedtwin_protocol.errors import ConfigurationError
from fedtwin_protocol.strict_yaml import load_strictly

FILE: Final = "keyring.json"
CREDENTIAL: Final = "credential:"


class _DataKey(BaseModel):
    """A data key's name, and its boxes by the fingerprint of the site key that opens each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    boxes: dict[str, str]


class KeyringFile(BaseModel):
    """`keyring.json`.

    Attributes:
        keys: oldest first; the last seals.
        complete: whether everything in the folder is encrypted; until then plain files are read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["fedtwin-keyring-1"] = "fedtwin-keyring-1"
    keys: tuple[_DataKey, ...]
    complete: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Keyring:
    """A node's data keys, open.

    Attributes:
        keys: by name, oldest first; the last seals.
        complete: whether a file that is not encrypted is refused.
    """

    keys: dict[str, bytes] = field(repr=False)
    complete: bool = True

    @property
    def current(self) -> str:
        """The name of the key that seals."""
        return next(reversed(self.keys))

    def for_purpose(self, purpose: str) -> list[bytes]:
        """Keys derived for a purpose, the one that seals first."""
        return [derived(key, purpose) for key in reversed(self.keys.values())]

    def close(self, data: bytes, about: str) -> str:
        """A box as text, with the name of its key."""
        box = close_box(derived(self.keys[self.current], "box"), data, about)
        return f"{self.current}:{base64.b64encode(box).decode()}"

    def open(self, text: str, about: str) -> bytes:
        """What is in a box made by `close`.

        Raises:
            ConfigurationError: it does not open with the keys of this node.
        """
        name, _, box = text.partition(":")
        try:
            return open_box(derived(self.keys[name], "box"), base64.b64decode(box), about)
        except (KeyError, ValueError, BoxError) as error:
            raise ConfigurationError(
                f"{about} does not open with this node's keys: it was changed, or belongs to "
                "another node or an older backup; put back what belongs together"
            ) from error

    def to_bytes(self) -> bytes:
        """For the pipe to a training worker, and nothing else."""
        keys = {name: base64.b64encode(key).decode() for name, key in self.keys.items()}
        return json.dumps({"keys": keys, "complete": self.complete}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Keyring | None":
        """What `to_bytes` made; nothing for no bytes."""
        if not data:
            return None
        value = json.loads(data)
        keys = {name: base64.b64decode(key) for name, key in value["keys"].items()}
        return cls(keys=keys, complete=value["complete"])


def keyring_of(place: Path) -> Keyring | None:
    """The keyring of the node's folder that a place belongs to; none where nothing is encrypted.

    Args:
        place: the node's folder, or the one of its records.

    Raises:
        ConfigurationError: the site key is absent, open to others, or the wrong one; or node.yaml
            names one and the keyring is gone.
    """
    for folder in (place, place.parent):
        if (folder / FILE).exists():
            return open_keyring(folder)
        if (folder / "node.yaml").exists() and key_file(folder) is not None:
            raise ConfigurationError(
                f"{folder / 'node.yaml'} names a key_file, but the folder has no keyring.json: "
                "restore it from a backup; if nothing was ever encrypted here, run "
                "'fedtwin client keys seal'"
            )
    return None


def open_keyring(folder: Path) -> Keyring:
    """Open a node's keyring with the site key that its node.yaml names.

    Raises:
        ConfigurationError: the site key is absent, open to others, or the wrong one.
    """
    path = key_file(folder)
    if path is None:
        raise ConfigurationError(
            f"{folder / 'node.yaml'} names no key_file, but the files of this node are encrypted: "
            "put the line 'key_file: …' back"
        )
    return unlocked(read_file(folder), read_site_key(path), path)


def unlocked(file: KeyringFile, site_key: bytes, path: Path) -> Keyring:
    """Open a keyring.

    Args:
        file: the keyring.
        site_key: 32 bytes.
        path: where the site key came from, for errors.

    Raises:
        ConfigurationError: it is another site key than this node's.
    """
    mark = fingerprint(site_key)
    keys: dict[str, bytes] = {}
    for key in file.keys:
        if mark not in key.boxes:
            wanted = " or ".join(sorted(key.boxes))
            raise ConfigurationError(
                f"{path} holds the site key {mark}; the files of this node are encrypted with "
                f"{wanted}: put the right key file back, from the place where its copy is kept"
            )
        try:
            keys[key.name] = open_box(site_key, base64.b64decode(key.boxes[mark]), key.name)
        except (BoxError, ValueError) as error:
            raise ConfigurationError(
                f"{FILE} of this node was changed and does not open: restore it from a backup"
            ) from error
    return Keyring(keys=keys, complete=file.complete)


def read_file(folder: Path) -> KeyringFile:
    """Read `keyring.json`.

    Raises:
        ConfigurationError: it cannot be read, or is damaged.
    """
    path = folder / FILE
    try:
        return KeyringFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        raise ConfigurationError(f"{path} is damaged: restore it from a backup") from error


def write_file(folder: Path, keyring: Keyring, site_keys: tuple[bytes, ...]) -> None:
    """Write `keyring.json`, at one blow; each of the site keys opens it.

    Raises:
        ConfigurationError: it cannot be written.
    """
    keys = tuple(
        _DataKey(
            name=name,
            boxes={
                fingerprint(site): base64.b64encode(close_box(site, key, name)).decode()
                for site in site_keys
            },
        )
        for name, key in keyring.keys.items()
    )
    file = KeyringFile(keys=keys, complete=keyring.complete)
    write_atomically(folder / FILE, file.model_dump_json(indent=1).encode())


def with_fresh_key(keyring: Keyring | None, *, complete: bool) -> Keyring:
    """A keyring with one more data key, which seals from now on."""
    keys = {} if keyring is None else dict(keyring.keys)
    name = f"k{1 + max((int(old[1:]) for old in keys), default=0)}"
    return Keyring(keys={**keys, name: fresh_key()}, complete=complete)


def key_file(folder: Path) -> Path | None:
    """Where node.yaml says that the site key is; none if it does not say.

    `credential:NAME` is a file that systemd hands over (LoadCredential=NAME:…).

    Raises:
        ConfigurationError: node.yaml cannot be read, or systemd handed nothing over.
    """
    path = folder / "node.yaml"
    try:
        settings = load_strictly(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"cannot read where the site key is in {path}: {error}") from error
    named = settings.get("key_file") if isinstance(settings, dict) else None
    if not named:
        return None
    if str(named).startswith(CREDENTIAL):
        handed = os.environ.get("CREDENTIALS_DIRECTORY")
        if not handed:
            raise ConfigurationError(
                f"{path} says key_file: {named}, but systemd handed no credentials over: start "
                "the node as its service, or run the command with systemd-run and LoadCredential="
            )
        return Path(handed) / str(named).removeprefix(CREDENTIAL)
    return folder / Path(str(named)).expanduser()


def read_site_key(path: Path) -> bytes:
    """Read the site key, if nobody but its owner can.

    Raises:
        ConfigurationError: it is absent, open to others, or no key.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read(KEY_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the site key {path} that node.yaml names (key_file): {error.strerror}; "
            "without it nothing of this node can be read. Put it back from the place where its "
            "copy is kept"
        ) from error
    handed = os.environ.get("CREDENTIALS_DIRECTORY")
    # systemd shows the right that its access list gives to the service's user as the group's.
    others = 0o037 if handed and path.parent == Path(handed) else 0o077
    if mode & others:
        raise ConfigurationError(
            f"the site key {path} is open to other users of this computer (mode {mode:04o}): "
            f"run  chmod 600 {path}"
        )
    if len(data) != KEY_BYTES:
        raise ConfigurationError(
            f"{path} holds no site key: expected {KEY_BYTES} bytes, found "
            f"{'more' if len(data) > KEY_BYTES else len(data)}; put the original file back"
        )
    return data


def fingerprint(site_key: bytes) -> str:
    """Names a site key without saying anything of it: 16 hexadecimal digits."""
    return hashlib.sha256(b"fedtwin site key" + site_key).hexdigest()[:16]


def files_of(folder: Path, pattern: str) -> Iterator[Path]:
    """Files of a node's folder, and of its records, by pattern and in order."""
    for place in (folder, folder / "records"):
        yield from sorted(path for path in place.glob(pattern) if path.is_file())

"""The coordinator's TUF repository: what the signers signed, and what the coordinator keeps fresh.

`<home>/tuf/` holds `N.root.json` and `N.targets.json` (signed by the threshold of signers), and
`N.snapshot.json` and `timestamp.json` (signed with the online key, `<home>/online.key`). The online
key can say which signed list is the newest, for a day at a time; it can put nothing on a list.
Files are written in such an order that a client sees the old or the new state, never half of one.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.exceptions import StorageError
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from fedtwin_protocol.credentials import write_atomically
from fedtwin_protocol.errors import ConfigurationError, SignatureError
from fedtwin_protocol.signing import SigningKey, TrustRoot, load_signing_key, public_key
from fedtwin_protocol.tuf_roots import TrustedRoot, follow_roots, make_root, read_root, tuf_key

ONLINE_HOLDER: Final = "coordinator"
# The signers meet at least once a year; what is online is renewed by the running coordinator, and
# a list that is held back shows within a day.
SIGNERS_LIFE: Final = timedelta(days=365)
SNAPSHOT_LIFE: Final = timedelta(days=7)
TIMESTAMP_LIFE: Final = timedelta(hours=24)


class TufRepository:
    """The repository of one coordinator.

    Args:
        home: the coordinator's folder.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self.folder = home / "tuf"

    @property
    def exists(self) -> bool:
        """Whether it was made."""
        return (self.folder / "timestamp.json").exists()

    def online_key(self) -> Ed25519PrivateKey:
        """The key that signs snapshots, timestamps and heads of the log.

        Raises:
            ConfigurationError: it is absent.
        """
        return load_signing_key(self._home / "online.key")

    def create(
        self, trust: TrustRoot, keys: Sequence[Ed25519PrivateKey], now: datetime
    ) -> TrustedRoot:
        """Make the first root and an empty list, signed by the signers at the ceremony."""
        online = Ed25519PrivateKey.generate()
        pem = online.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        write_atomically(self._home / "online.key", pem)
        root = make_root(trust, public_key(online, ONLINE_HOLDER))
        root.version, root.expires = 1, _until(now, SIGNERS_LIFE)
        signed_root: Metadata[Any] = Metadata(root)
        targets: Metadata[Any] = Metadata(Targets(version=1, expires=_until(now, SIGNERS_LIFE)))
        for metadata in (signed_root, targets):
            add_signatures(metadata, keys)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write("1.root.json", signed_root)
        self.publish(targets, now)
        return read_root(signed_root.to_bytes())[0]

    def roots(self) -> list[bytes]:
        """Every root, oldest first."""
        return [
            self._read(f"{version}.root.json") for version in range(1, self._newest("root") + 1)
        ]

    def root(self) -> TrustedRoot:
        """The newest root, its chain checked.

        Raises:
            ConfigurationError: there is no repository.
        """
        if not self._newest("root"):
            raise ConfigurationError(
                f"there is no TUF repository in {self.folder}: 'fedtwin server init' makes it; "
                "restore the folder from a backup, or set the coordinator up anew"
            )
        roots = self.roots()
        return follow_roots(read_root(roots[0])[0].trust, roots)[-1]

    def next_targets(self, files: Mapping[str, TargetFile], now: datetime) -> Metadata[Targets]:
        """The list with more files on it, still without signatures.

        Args:
            files: by path; one that is listed already is replaced.
            now: the time.
        """
        current = self._targets().signed
        return Metadata(
            Targets(
                version=current.version + 1,
                expires=_until(now, SIGNERS_LIFE),
                targets={**current.targets, **files},
            )
        )

    def next_root(self, trust: TrustRoot, now: datetime) -> Metadata[Root]:
        """The next root, for other signers, still without signatures."""
        current = self.root()
        root = make_root(trust, current.online)
        root.version, root.expires = current.version + 1, _until(now, SIGNERS_LIFE)
        return Metadata(root)

    def publish(self, targets: Metadata[Targets], now: datetime) -> None:
        """Make a list that the threshold has signed the newest.

        Raises:
            SignatureError: too few signatures.
            ConfigurationError: another list was published meanwhile.
        """
        check_threshold(targets, self.root().trust)
        with self._locked():
            self._check_next(targets)
            self._write(f"{targets.signed.version}.targets.json", targets)
            self._renew_snapshot(now)
            self._renew_timestamp(now)

    def publish_root(self, root: Metadata[Root], targets: Metadata[Targets], now: datetime) -> None:
        """Make a root the newest, with the list signed by its signers.

        Raises:
            SignatureError: too few signatures of the signers before it, or of its own.
        """
        data = root.to_bytes()
        chain = self.roots()
        follow_roots(read_root(chain[0])[0].trust, [*chain, data])
        check_threshold(targets, read_root(data)[0].trust)
        self._check_next(targets)
        self._write(f"{root.signed.version}.root.json", root)
        self.publish(targets, now)

    def refresh_if_due(self, now: datetime) -> None:
        """Renew snapshot and timestamp at half of their lives."""
        with self._locked():
            timestamp = self._load("timestamp.json")
            snapshot = self._load(f"{timestamp.signed.snapshot_meta.version}.snapshot.json")
            if snapshot.signed.expires - now < SNAPSHOT_LIFE / 2:
                self._renew_snapshot(now)
                self._renew_timestamp(now)
            elif timestamp.signed.expires - now < TIMESTAMP_LIFE / 2:
                self._renew_timestamp(now)

    def _check_next(self, targets: Metadata[Targets]) -> None:
        newest = self._newest("targets")
        if targets.signed.version != newest + 1:
            raise ConfigurationError(
                f"the list of releases is at version {newest}, and this one is "
                f"{targets.signed.version}: another was published meanwhile; start again"
            )

    def _renew_snapshot(self, now: datetime) -> None:
        version = self._newest("snapshot") + 1
        newest = self._newest("targets")
        meta = {"targets.json": self._meta(f"{newest}.targets.json", newest)}
        snapshot = Snapshot(version=version, expires=_until(now, SNAPSHOT_LIFE), meta=meta)
        self._write(f"{version}.snapshot.json", self._signed_online(snapshot))

    def _renew_timestamp(self, now: datetime) -> None:
        path = self.folder / "timestamp.json"
        version = self._load("timestamp.json").signed.version + 1 if path.exists() else 1
        newest = self._newest("snapshot")
        timestamp = Timestamp(
            version=version,
            expires=_until(now, TIMESTAMP_LIFE),
            snapshot_meta=self._meta(f"{newest}.snapshot.json", newest),
        )
        self._write("timestamp.json", self._signed_online(timestamp))

    def _signed_online(self, signed: Snapshot | Timestamp) -> Metadata[Any]:
        metadata: Metadata[Any] = Metadata(signed)
        add_signatures(metadata, [self.online_key()])
        return metadata

    def _meta(self, name: str, version: int) -> MetaFile:
        return MetaFile.from_data(version, self._read(name), ["sha256"])

    def _targets(self) -> Metadata[Targets]:
        return self._load(f"{self._newest('targets')}.targets.json")

    def _newest(self, role: str) -> int:
        names = (path.name.partition(".")[0] for path in self.folder.glob(f"*.{role}.json"))
        return max((int(name) for name in names if name.isdigit()), default=0)

    def _load(self, name: str) -> Metadata[Any]:
        return load_metadata(self.folder / name)

    def _read(self, name: str) -> bytes:
        try:
            return (self.folder / name).read_bytes()
        except OSError as error:
            raise ConfigurationError(
                f"cannot read {self.folder / name}: {error.strerror}; restore it from a backup"
            ) from error

    def _write(self, name: str, metadata: Metadata[Any]) -> None:
        write_atomically(self.folder / name, metadata.to_bytes(), mode=0o644)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """The running coordinator and a command never write at the same time."""
        descriptor = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def add_signatures(metadata: Metadata[Any], keys: Sequence[Ed25519PrivateKey]) -> None:
    """Sign with each key, beside the signatures that are there."""
    for key in keys:
        named = tuf_key(public_key(key, "-"))
        assert isinstance(named, SSlibKey)
        metadata.sign(CryptoSigner(key, named), append=True)


def check_threshold(metadata: Metadata[Any], trust: TrustRoot) -> None:
    """Refuse metadata that too few of the signers have signed.

    Raises:
        SignatureError: says who did.
    """
    signed = signers_of(metadata, trust)
    if len(signed) < trust.threshold:
        raise SignatureError(
            f"expected {trust.threshold} signatures of {trust.consortium}'s {len(trust.keys)} "
            f"signers, found {len(signed)} ({', '.join(signed) or 'none'})"
        )


def signers_of(metadata: Metadata[Any], trust: TrustRoot) -> list[str]:
    """Holders among the signers whose signatures fit."""
    body = metadata.signed_bytes
    found = []
    for key in trust.keys:
        signature = metadata.signatures.get(key.key_id)
        if signature is not None:
            try:
                tuf_key(key).verify_signature(signature, body)
            except Exception as error:  # python-tuf's own tree has no root of its own
                raise SignatureError(
                    f"the signature of {key.holder} does not fit: it was made for something else"
                ) from error
            found.append(key.holder)
    return found


def load_metadata(path: Path) -> Metadata[Any]:
    """Read metadata.

    Raises:
        ConfigurationError: they are absent or damaged.
    """
    try:
        return Metadata.from_file(str(path))
    except (RepositoryError, StorageError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be used: {error}") from error


def listed(
    files: Mapping[str, bytes], study: str, version: int, facts: Mapping[str, str]
) -> dict[str, TargetFile]:
    """A release's files as the list names them.

    Args:
        files: contents by name.
        study: its name.
        version: of the plan.
        facts: beside each file, as text: a list must hold no floats.
    """
    found = {}
    for name, data in files.items():
        path = f"{study}/{version}/{name}"
        target = TargetFile.from_data(path, data, ["sha256"])
        target.unrecognized_fields["custom"] = dict(facts)
        found[path] = target
    return found


def online_signing_key(key: Ed25519PrivateKey) -> SigningKey:
    """The public half of the online key."""
    return public_key(key, ONLINE_HOLDER)


def _until(now: datetime, life: timedelta) -> datetime:
    return (now + life).replace(microsecond=0)

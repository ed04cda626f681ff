"""A hospital node's folder, and its settings.

node.yaml            where the coordinator is, how to get there, what is installed here
policy.yaml          what the hospital allows
identity/            the key and the certificates
trust.json, roots/   whose signatures count: pinned at enrolment, and who followed
log.json             what this node holds of the consortium's public log
tuf/                 the list of releases that was last believed
node.sqlite          studies and decisions        ledger.sqlite, outbox.sqlite, sums.sqlite
records/             timelines and the pseudonym map
fhir/                keys for FHIR servers, and how far each was read
contents/            large models and updates under way
keyring.json         keys of the encrypted files, in boxes that the site key opens; the site key is
                     a file outside this folder, named in node.yaml
"""

import fcntl
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedtwin_protocol.contract import faults
from fedtwin_protocol.credentials import write_atomically
from fedtwin_protocol.errors import ConfigurationError, FedtwinError
from fedtwin_protocol.proxies import check_proxy
from fedtwin_protocol.signing import TrustRoot
from fedtwin_protocol.strict_yaml import load_strictly
from fedtwin_protocol.tuf_roots import TrustedRoot, follow_roots


class NodeSettings(BaseModel):
    """`node.yaml`.

    Attributes:
        consortium: the consortium's name.
        site: this hospital's name in it.
        coordinator: `host:port` to dial; the node's only connection.
        proxy: `http://host:port` of an HTTP CONNECT proxy, if the way out leads through one; with
            `name:password@` before the host where it asks for them.
        client_apps: model families that IT has installed as Flower ClientApps, `module:name`.
        key_file: the site key that the node's files are encrypted with: a path outside the node's
            folder, or `credential:NAME` for one that systemd hands over (LoadCredential).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    consortium: str
    site: str
    coordinator: str = Field(pattern=r"^\S+:\d+$")
    proxy: str | None = None
    client_apps: dict[str, str] = Field(default_factory=dict)
    key_file: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeHome:
    """A node's folder."""

    folder: Path

    @property
    def settings_file(self) -> Path:
        """`node.yaml`."""
        return self.folder / "node.yaml"

    @property
    def identity(self) -> Path:
        """Folder of key and certificates."""
        return self.folder / "identity"

    @property
    def policy_file(self) -> Path:
        """`policy.yaml`."""
        return self.folder / "policy.yaml"

    @property
    def ledger_file(self) -> Path:
        """The privacy ledger."""
        return self.folder / "ledger.sqlite"

    @property
    def outbox_file(self) -> Path:
        """What was sent, and what waits to be."""
        return self.folder / "outbox.sqlite"

    @property
    def sums_file(self) -> Path:
        """Secrets of secure sums under way."""
        return self.folder / "sums.sqlite"

    @property
    def studies_file(self) -> Path:
        """Studies and decisions."""
        return self.folder / "node.sqlite"

    @property
    def records(self) -> Path:
        """Timelines."""
        return self.folder / "records"

    @property
    def contents(self) -> Path:
        """Blobs under way."""
        return self.folder / "contents"

    @property
    def plans(self) -> Path:
        """Plans in canonical bytes, for the workers."""
        return self.folder / "plans"

    def settings(self) -> NodeSettings:
        """Read `node.yaml`.

        Raises:
            ConfigurationError: it is absent or wrong.
        """
        try:
            value = load_strictly(self.settings_file.read_text(encoding="utf-8"))
            settings = NodeSettings.model_validate(value)
            if settings.proxy is not None:
                check_proxy(settings.proxy)
            return settings
        except FileNotFoundError as error:
            raise ConfigurationError(
                f"there is no node in {self.folder}: run 'fedtwin client enrol' first, or name "
                "its folder with --home"
            ) from error
        except ValidationError as error:
            raise ConfigurationError(
                f"{self.settings_file} cannot be used: {faults(error)}"
            ) from error
        except (yaml.YAMLError, UnicodeDecodeError, OSError, ConfigurationError) as error:
            raise ConfigurationError(f"{self.settings_file} cannot be used: {error}") from error

    def trust(self) -> TrustRoot:
        """Whose signatures count today: those pinned at enrolment, or who followed them.

        Raises:
            ConfigurationError: it is absent or damaged.
        """
        newest = self.newest_root()
        return self.pinned_trust() if newest is None else newest.trust

    def root_version(self) -> int:
        """Of the newest TUF root here; 0 before the first."""
        newest = self.newest_root()
        return 0 if newest is None else newest.version

    def newest_root(self) -> TrustedRoot | None:
        """The newest TUF root that follows the pinned signers; none before the first."""
        roots = self._roots()
        try:
            return follow_roots(self.pinned_trust(), roots)[-1] if roots else None
        except FedtwinError as error:
            raise ConfigurationError(
                f"the TUF roots in {self._roots_folder} cannot be used ({error}): remove that "
                "folder, and they are fetched again"
            ) from error

    def keep_roots(self, roots: Sequence[bytes]) -> None:
        """Believe the TUF roots that follow those here, and keep them.

        Raises:
            ReleaseError: one is none, or none names the pinned signers.
            SignatureError: one is not signed by the threshold before it and by its own.
        """
        if roots:
            chain = follow_roots(self.pinned_trust(), [*self._roots(), *roots])
            for root in chain:
                path = self._roots_folder / f"{root.version}.root.json"
                if not path.exists():
                    write_atomically(path, root.data, mode=0o644)

    @property
    def _roots_folder(self) -> Path:
        return self.folder / "roots"

    def _roots(self) -> list[bytes]:
        paths = self._roots_folder.glob("[0-9]*.root.json")
        numbered = sorted(paths, key=lambda path: int(path.name.partition(".")[0]))
        return [path.read_bytes() for path in numbered]

    def pinned_trust(self) -> TrustRoot:
        """Whose signatures counted at enrolment: the start of the chain of roots.

        Raises:
            ConfigurationError: it is absent or damaged.
        """
        path = self.folder / "trust.json"
        try:
            return TrustRoot.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            why = faults(error) if isinstance(error, ValidationError) else error.strerror
            raise ConfigurationError(
                f"{path} cannot be used ({why}): enrol again with a new invitation"
            ) from error

    def lock(self) -> int:
        """Be the only agent on this folder; returns a descriptor to keep open.

        Raises:
            ConfigurationError: another agent runs.
        """
        descriptor = os.open(self.folder / "node.lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise ConfigurationError(
                f"another node runs on {self.folder} already: stop it first"
            ) from error
        return descriptor

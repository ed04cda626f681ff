"""A researcher's library: releases in a local folder, verified whenever one is opened.

`<folder>/trust/<consortium>.json` says whose signatures count; it is pinned by the first invitation
and never changed by a download. `<folder>/releases/<consortium>/<study>/` holds one folder for each
release and `current`, the name of the newest. Rules:
1. Nothing enters that was not verified; nothing is opened without being verified again. Beside a
   release lies `evidence/`: the TUF metadata that listed it and the log's proofs, so that the whole
   chain can be verified again without a network (chain.py).
2. A release older than the current one is refused: an old model cannot be passed off as new.
3. A crash leaves the old release in place.
"""

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pydantic import ValidationError

from fedtwin_protocol.attestation import EVIDENCE
from fedtwin_protocol.canonical import canonical_bytes, sha256_hex
from fedtwin_protocol.credentials import check_writable
from fedtwin_protocol.errors import ConfigurationError, ReleaseError
from fedtwin_protocol.fetching import check_against_list
from fedtwin_protocol.release import LARGEST_BYTES, LISTED, STATEMENT, Release, verify_release
from fedtwin_protocol.signing import TrustRoot
from fedtwin_protocol.tuf_client import Listing, TufClient, kept_until, read_folder

_NAME = re.compile(r"[a-z][a-z0-9-]{1,80}")
_FILES = (*LISTED, STATEMENT)


def default_folder(environment: dict[str, str] | None = None) -> Path:
    """FEDTWIN_RELEASES, or a folder in the user's own data."""
    chosen = (os.environ if environment is None else environment).get("FEDTWIN_RELEASES")
    return Path(chosen) if chosen else Path.home() / ".local/share/fedtwin/releases"


@dataclass(frozen=True, slots=True)
class Library:
    """Releases of one or several consortia in a folder."""

    folder: Path

    def check_pin(self, trust: TrustRoot) -> None:
        """Refuse a root where another one is pinned, and a folder that cannot be written.

        Raises:
            ConfigurationError: it would not be pinned.
        """
        path = self._trust_path(trust.consortium)
        if path.exists() and self.trust(trust.consortium) != trust:
            raise ConfigurationError(
                f"another trust root of {trust.consortium} is pinned in {path}; if the consortium "
                "told you of new signers by another way than this one, remove that file first"
            )
        check_writable(path.parent)

    def pin(self, trust: TrustRoot) -> None:
        """Keep a consortium's trust root.

        Raises:
            ConfigurationError: another root is pinned already, or the folder cannot be written.
        """
        self.check_pin(trust)
        _write(self._trust_path(trust.consortium), canonical_bytes(trust.model_dump(mode="json")))

    def trust(self, consortium: str) -> TrustRoot:
        """The pinned trust root of a consortium.

        Raises:
            ConfigurationError: none is pinned, or the file is damaged.
        """
        path = self._trust_path(consortium)
        if not path.exists():
            raise ConfigurationError(
                f"no trust root of {consortium} at {path}: enrol with the consortium's invitation, "
                "or pin the root it gave you"
            )
        return read_trust(path)

    def studies(self) -> tuple[str, ...]:
        """`<consortium>/<study>` of every release here, in order."""
        places = self.folder.glob("releases/*/*/current")
        return tuple(sorted(f"{path.parent.parent.name}/{path.parent.name}" for path in places))

    def add(
        self,
        files: dict[str, bytes],
        consortium: str,
        evidence: Mapping[str, bytes] | None = None,
        listing: Listing | None = None,
    ) -> Release:
        """Verify a release and keep it as the study's current one.

        Args:
            files: contents by name.
            consortium: whose it is.
            evidence: what proves where it comes from, by file name.
            listing: the list of releases that names it, as it was believed.

        Raises:
            SignatureError: too few or wrong signatures.
            ReleaseError: a rule of the release is broken, or it is older than the current one.
        """
        release = verify_listed(files, self.trust(consortium), listing)
        study = release.statement.study
        home = self._home(consortium, study)
        if (home / "current").exists():
            current = self.open(f"{consortium}/{study}")
            if _age(release) < _age(current):
                raise ReleaseError(
                    f"refused an older release of {study}: version {release.statement.version} of "
                    f"{release.statement.created.isoformat()}, here is {_age(current)[0]} of "
                    f"{current.statement.created.isoformat()}"
                )
        name = sha256_hex(release.statement.to_bytes())[:32]
        for file_name in _FILES:
            _write(home / name / file_name, files[file_name])
        for file_name, data in (evidence or {}).items():
            _write(home / name / EVIDENCE / file_name, data)
        _write(home / "current", name.encode())
        return release

    def open(self, study: str) -> Release:
        """Read and verify the current release of a study.

        Args:
            study: its name, or `<consortium>/<name>` where several consortia have one.

        Raises:
            ReleaseError: there is none, several, or it does not verify.
            SignatureError: too few or wrong signatures.
        """
        consortium, name = self._find(study)
        folder = self.place(study)
        pinned = self.trust(consortium)
        listing = None
        if (folder / EVIDENCE).is_dir():
            listing = offline_listing(folder / EVIDENCE, pinned)
        release = verify_listed(read_release(folder), pinned, listing)
        if release.statement.study != name:
            raise ReleaseError(
                f"{folder.parent} holds a release of {release.statement.study}, not of {name}"
            )
        return release

    def consortium_of(self, study: str) -> str:
        """Whose release of that name is here.

        Raises:
            ReleaseError: there is none, or several consortia have one.
        """
        return self._find(study)[0]

    def place(self, study: str) -> Path:
        """The folder of a study's current release.

        Raises:
            ReleaseError: there is none, or several consortia have one.
        """
        consortium, name = self._find(study)
        home = self._home(consortium, name)
        try:
            current = (home / "current").read_text(encoding="ascii", errors="replace").strip()
        except OSError as error:
            raise ReleaseError(f"cannot read {home / 'current'}: {error.strerror}") from error
        if not re.fullmatch(r"[0-9a-f]{32}", current):
            raise ReleaseError(f"{home / 'current'} is damaged: fetch the release again")
        return home / current

    def _find(self, study: str) -> tuple[str, str]:
        known = self.studies()
        found = [one for one in known if study in (one, one.partition("/")[2])]
        if len(found) == 1:
            consortium, _, name = found[0].partition("/")
            return consortium, name
        if found:
            raise ReleaseError(f"several consortia have a '{study}': say one of {', '.join(found)}")
        have = ", ".join(known) or "none yet"
        raise ReleaseError(
            f"no release of '{study}' in {self.folder} (there: {have}); fetch it with "
            f"'fedtwin research fetch {study}'"
        )

    def _trust_path(self, consortium: str) -> Path:
        return self.folder / "trust" / f"{_checked(consortium)}.json"

    def _home(self, consortium: str, study: str) -> Path:
        return self.folder / "releases" / _checked(consortium) / _checked(study)


def _age(release: Release) -> tuple[int, float]:
    return release.statement.version, release.statement.created.timestamp()


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ReleaseError(f"expected a name of small letters, digits and hyphens, got {name!r}")
    return name


def verify_listed(
    files: Mapping[str, bytes], pinned: TrustRoot, listing: Listing | None
) -> Release:
    """Believe a release by today's signers and their list; without one, by the pinned signers.

    Raises:
        SignatureError: too few or wrong signatures.
        ReleaseError: a rule of the release is broken, or it is not the one on the list.
    """
    if listing is None:
        return verify_release(files, pinned)
    former = [root.trust for root in listing.roots[:-1]]
    release = verify_release(files, listing.root.trust, former=former)
    check_against_list(files, listing.of(release.plan.study, release.plan.version))
    return release


def offline_listing(evidence: Path, pinned: TrustRoot) -> Listing:
    """The list of releases that was kept beside a release, believed as of the time it was fetched.

    Raises:
        ReleaseError: it is damaged, or does not follow the pinned signers.
        SignatureError: too few signatures.
    """
    then = kept_until(evidence) - timedelta(seconds=1)
    with tempfile.TemporaryDirectory() as folder:
        return TufClient(Path(folder), pinned, read_folder(evidence), then).refresh()


def read_trust(path: Path) -> TrustRoot:
    """Read a trust root, `trust.json`.

    Raises:
        ConfigurationError: the file cannot be read, or holds something else.
    """
    try:
        return TrustRoot.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"cannot read the trust root {path}: {error.strerror}") from error
    except ValidationError as error:
        raise ConfigurationError(f"{path} holds no trust root; get it anew") from error


def read_release(folder: Path) -> dict[str, bytes]:
    """Every file of a release's folder, none larger than it may be; nothing is believed yet.

    Raises:
        ReleaseError: the folder cannot be read, or a file is larger than any release's.
    """
    files = {}
    try:
        for path in sorted(folder.iterdir()):
            if path.name == EVIDENCE and path.is_dir():
                continue
            size, largest = path.stat().st_size, LARGEST_BYTES.get(path.name, 0)
            if size > largest:
                raise ReleaseError(f"{path} has {size} bytes; a release may hold {largest} there")
            files[path.name] = path.read_bytes()
    except OSError as error:
        raise ReleaseError(f"cannot read the release in {folder}: {error.strerror}") from error
    return files


def _write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent.parent, delete=False) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(path)
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error

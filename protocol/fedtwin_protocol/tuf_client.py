"""A party's TUF client: believe the coordinator's list of releases, or say what is wrong with it.

The rules are those of the TUF client workflow (specification 1.0.31, section 5) in python-tuf's
`Updater`; here stand only our transport, our times, and sentences. What was trusted once lies in a
folder and is held against everything that comes later:
1. roots follow one another, each signed by the threshold before it and its own;
2. an older timestamp, snapshot or list of releases is refused (roll-back);
3. metadata past their date are refused (freeze);
4. a list of releases that is not the snapshot's is refused (mix-and-match);
5. nothing is read beyond the length that is signed, or the limit of its role (endless data);
6. a list with fewer signatures than the threshold is refused.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Metadata, TargetFile, Targets, Timestamp
from tuf.ngclient import Updater, UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface

from fedtwin_protocol.errors import ConfigurationError, ReleaseError, SignatureError
from fedtwin_protocol.signing import TrustRoot
from fedtwin_protocol.tuf_roots import TrustedRoot, follow_roots

Read = Callable[[str], Iterator[bytes]]
METADATA: Final = "metadata/"
TARGETS: Final = "targets/"
NOT_THERE: Final = 404
MOST_ROOTS: Final = 256


class NotThereError(ReleaseError):
    """The other end has no file of that name."""


class PathFetcher(FetcherInterface):
    """Python-tuf's transport over any function that reads a path in pieces.

    Args:
        read: pieces of the file at a path such as `metadata/timestamp.json`.

    Raises:
        DownloadHTTPError: with 404, where `read` raises NotThereError.
    """

    def __init__(self, read: Read) -> None:
        self._read = read

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            yield from self._read(url.removeprefix("tuf://"))
        except NotThereError as error:
            raise DownloadHTTPError(str(error), NOT_THERE) from error


def read_folder(folder: Path) -> Read:
    """Read from files that were fetched before: `metadata/…` below a folder."""

    def read(path: str) -> Iterator[bytes]:
        place = folder / path.removeprefix(METADATA)
        try:
            yield place.read_bytes()
        except FileNotFoundError as error:
            raise NotThereError(f"{place} is not there") from error

    return read


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """The list of releases that was believed.

    Attributes:
        roots: the chain of roots from the pinned signers on.
        version: of the list.
        signers: holders whose signatures it bears.
        files: targets by path, `<study>/<version>/<file>`.
        expires: when the coordinator's statement that it is the newest ends.
        signers_expire: when the signers must have signed the list again.
    """

    roots: tuple[TrustedRoot, ...]
    version: int
    signers: tuple[str, ...]
    files: Mapping[str, TargetFile]
    expires: datetime
    signers_expire: datetime

    @property
    def root(self) -> TrustedRoot:
        """The newest root."""
        return self.roots[-1]

    def of(self, study: str, version: int) -> dict[str, TargetFile]:
        """A release's files by name."""
        start = f"{study}/{version}/"
        found = {path: target for path, target in self.files.items() if path.startswith(start)}
        return {path.removeprefix(start): target for path, target in found.items()}

    def versions(self, study: str) -> list[int]:
        """Versions of a study that are listed, oldest first."""
        start = f"{study}/"
        names = {path.split("/")[1] for path in self.files if path.startswith(start)}
        return sorted(int(name) for name in names if name.isdigit())


class TufClient:
    """Trusted metadata of one consortium in a folder.

    Args:
        folder: where they lie; made if absent.
        pinned: the signers that an invitation named.
        read: the coordinator's files, or a folder's.
        now: the time.
    """

    def __init__(self, folder: Path, pinned: TrustRoot, read: Read, now: datetime) -> None:
        self._folder, self._pinned, self._read, self._now = folder, pinned, read, now
        self._fetcher = PathFetcher(read)
        self._updater: Updater | None = None

    def refresh(self) -> Listing:
        """Fetch what is new and believe it, or raise; the rules stand at the top.

        Raises:
            ReleaseError: roll-back, freeze, mix-and-match, endless data, or no repository.
            SignatureError: too few signatures.
            ConfigurationError: the folder cannot be written.
            LinkError: the coordinator was not reached.
        """
        with _explained():
            first = self._first_root()
            self._updater = Updater(
                str(self._folder),
                f"tuf://{METADATA}",
                target_base_url=f"tuf://{TARGETS}",
                fetcher=self._fetcher,
                config=UpdaterConfig(prefix_targets_with_hash=False),
                bootstrap=first,
            )
            # The updater takes this machine's time when it is made; ours is handed in.
            self._updater._trusted_set.reference_time = self._now
            self._updater.refresh()
            return read_listing(self._folder, self._pinned)

    def download(self, path: str, target: TargetFile, folder: Path) -> bytes:
        """One listed file, of the listed length and hash.

        Raises:
            ReleaseError: it is not what the signers listed.
        """
        assert self._updater is not None, "refresh comes first"
        with _explained(path):
            place = folder / path.rpartition("/")[2]
            self._updater.download_target(target, str(place))
            return place.read_bytes()

    def _first_root(self) -> bytes:
        """The first root that names the pinned signers: kept from before, or fetched."""
        kept = self._folder / "pinned.root.json"
        if kept.exists():
            return follow_roots(self._pinned, [kept.read_bytes()])[0].data
        seen: list[bytes] = []
        for version in range(1, MOST_ROOTS):
            try:
                limit = UpdaterConfig().root_max_length
                path = f"tuf://{METADATA}{version}.root.json"
                seen.append(self._fetcher.download_bytes(path, limit))
                found = follow_roots(self._pinned, seen[-1:])
            except DownloadHTTPError:
                break
            except ReleaseError:
                continue
            self._folder.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(found[0].data)
            return found[0].data
        follow_roots(self._pinned, seen)
        raise ReleaseError("the coordinator shows no TUF root")


def read_listing(folder: Path, pinned: TrustRoot) -> Listing:
    """The list of releases that lies in a client's folder, believed before.

    Raises:
        ReleaseError: there is none.
    """
    try:
        history = folder / "root_history"
        paths = sorted(history.iterdir(), key=lambda path: int(path.name.partition(".")[0]))
        roots = follow_roots(pinned, [path.read_bytes() for path in paths])
        targets: Metadata[Targets] = Metadata.from_file(str(folder / "targets.json"))
        timestamp: Metadata[Timestamp] = Metadata.from_file(str(folder / "timestamp.json"))
    except (OSError, ValueError, RepositoryError) as error:
        raise ReleaseError(f"{folder} holds no trusted TUF metadata: fetch again") from error
    holders = {key.key_id: key.holder for key in roots[-1].trust.keys}
    return Listing(
        roots=tuple(roots),
        version=targets.signed.version,
        signers=tuple(holders[name] for name in targets.signatures if name in holders),
        files=targets.signed.targets,
        expires=timestamp.signed.expires,
        signers_expire=targets.signed.expires,
    )


def keep_metadata(client_folder: Path, target: Path) -> None:
    """Copy a client's trusted metadata so that they can be verified again without a network.

    The copy is a repository as a coordinator serves it: `read_folder` reads it.
    """
    target.mkdir(parents=True, exist_ok=True)
    for path in (client_folder / "root_history").iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    for role in ("timestamp", "snapshot", "targets"):
        data = (client_folder / f"{role}.json").read_bytes()
        version = json.loads(data)["signed"]["version"]
        name = "timestamp.json" if role == "timestamp" else f"{version}.{role}.json"
        (target / name).write_bytes(data)


def kept_until(folder: Path) -> datetime:
    """When the timestamp of kept metadata ends.

    Raises:
        ReleaseError: there is none.
    """
    try:
        metadata: Metadata[Any] = Metadata.from_file(str(folder / "timestamp.json"))
    except (OSError, ValueError, RepositoryError) as error:
        raise ReleaseError(f"{folder} lacks a timestamp: fetch the release again") from error
    expires: datetime = metadata.signed.expires
    return expires


@contextmanager
def _explained(what: str = "the list of releases") -> Iterator[None]:
    """Turn python-tuf's errors into sentences for a researcher or a hospital's IT."""
    try:
        yield
    except UnsignedMetadataError as error:
        raise SignatureError(
            f"{what} is not signed by those who must sign it ({error}): it is not the consortium's"
        ) from error
    except ExpiredMetadataError as error:
        raise ReleaseError(
            f"the coordinator shows a list of releases that is past its date ({error}): it may "
            "hide a newer one (freeze), or its clock or this computer's is wrong; ask the "
            "consortium"
        ) from error
    except BadVersionNumberError as error:
        raise ReleaseError(
            f"the coordinator shows an older list of releases than before ({error}): an old model "
            "would pass for the newest (roll-back)"
        ) from error
    except DownloadLengthMismatchError as error:
        raise ReleaseError(
            f"more bytes came for {what} than the signers listed ({error}): the transfer was ended"
        ) from error
    except LengthOrHashMismatchError as error:
        raise ReleaseError(
            f"{what} is not what the signed metadata say ({error}): it was changed, or parts of "
            "two releases are mixed"
        ) from error
    except DownloadHTTPError as error:
        raise ReleaseError(f"the coordinator lacks a file that it must have: {error}") from error
    except (RepositoryError, DownloadError) as error:
        raise ReleaseError(f"{what} cannot be believed: {error}") from error
    except OSError as error:
        raise ConfigurationError(
            f"cannot use {error.filename or what}: {error.strerror}"
        ) from error

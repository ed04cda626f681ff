"""Public data sets for trying things out, fetched by address and believed by checksum.

Rule: a file is written under its name only after its SHA-256 and MD5 were found right. The MD5 are
the ones that FLamby (github.com/owkin/FLamby) publishes for the same files.
"""

import hashlib
import os
import tempfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.error import URLError

from fedtwin_protocol.errors import ConfigurationError

Opener = Callable[[str], bytes]

_ADDRESS: Final = "https://archive.ics.uci.edu/ml/machine-learning-databases/heart-disease"
_LARGEST: Final = 2**20

NOTICE: Final = (
    "UCI Heart Disease, CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/). Cite: Janosi A, "
    "Steinbrunn W, Pfisterer M, Detrano R (1988). Heart Disease. UCI Machine Learning Repository. "
    "Data from the Hungarian Institute of Cardiology, Budapest (A. Janosi); University Hospital "
    "Zurich (W. Steinbrunn); University Hospital Basel (M. Pfisterer); V.A. Medical Center Long "
    "Beach and Cleveland Clinic Foundation (R. Detrano)."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile:
    """A file of a data set: its name, size in bytes, and checksums in hexadecimal."""

    name: str
    size: int
    sha256: str
    md5: str

    @property
    def address(self) -> str:
        """Where it is published."""
        return f"{_ADDRESS}/{self.name}"


HEART_DISEASE: Final = (
    RemoteFile(
        name="processed.cleveland.data",
        size=18461,
        sha256="a74b7efa387bc9d108d7d0115d831fe9b414b29ae7124f331b622b4efa0427c8",
        md5="2d91a8ff69cfd9616aa47b59d6f843db",
    ),
    RemoteFile(
        name="processed.hungarian.data",
        size=10263,
        sha256="d1ad108f785768cd3d7e82dc522e6f5a61eea93cccfb3a46ee8076f73fc3d796",
        md5="22e96bee155b5973568101c93b3705f6",
    ),
    RemoteFile(
        name="processed.switzerland.data",
        size=4109,
        sha256="834a405ccf5b66ab4056bb77794adc8df0b7125186454c0a1d002d33c6c3b314",
        md5="9a87f7577310b3917730d06ba9349e20",
    ),
    RemoteFile(
        name="processed.va.data",
        size=6737,
        sha256="e7c93d8d0d2acdadfa4c5e8de768e2191e7f618b952e29623f1f0d5949ff6b8f",
        md5="4249d03ca7711e84f4444768c9426170",
    ),
)


def open_address(address: str) -> bytes:
    """Read a file over HTTPS, at most one byte more than any file of ours may have.

    Raises:
        OSError: there is no way to the address (`urllib.error.URLError` is one).
    """
    if not address.startswith("https://"):
        raise ConfigurationError(f"expected an https:// address, got {address}")
    with urllib.request.urlopen(address, timeout=30) as answer:  # noqa: S310 - https only, checked above
        data: bytes = answer.read(_LARGEST + 1)
    return data


def fetch_heart_disease(
    folder: Path, opener: Opener = open_address, copies: Path | None = None
) -> tuple[Path, ...]:
    """Put the four verified files of the UCI heart disease set into a folder.

    Files that are there already and right are left alone. Show `NOTICE` to whoever uses them.

    Args:
        folder: made if it is not there.
        opener: reads an address.
        copies: a folder with copies at hand, to be verified instead of fetched.

    Returns:
        The four files: Cleveland, Hungary, Switzerland, Long Beach.

    Raises:
        ConfigurationError: no network (says what to do instead), a copy is missing, or a file is
            not the one that was published (names the file and both checksums).
    """
    return tuple(_obtain(file, folder, opener, copies) for file in HEART_DISEASE)


def _obtain(file: RemoteFile, folder: Path, opener: Opener, copies: Path | None) -> Path:
    path = folder / file.name
    if path.is_file() and _fault(file, path.read_bytes()) is None:
        return path
    data, origin = _copied(file, copies) if copies else _fetched(file, folder, opener)
    fault = _fault(file, data)
    if fault:
        raise ConfigurationError(f"{origin} is not the file that was published: {fault}")
    _write(path, data)
    return path


def _fetched(file: RemoteFile, folder: Path, opener: Opener) -> tuple[bytes, str]:
    try:
        return opener(file.address), file.address
    except (URLError, OSError) as error:
        raise ConfigurationError(_without_network(folder, file, error)) from error


def _copied(file: RemoteFile, copies: Path) -> tuple[bytes, str]:
    path = copies / file.name
    try:
        return path.read_bytes(), str(path)
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {path}: {error.strerror}; expected copies of "
            f"{', '.join(one.name for one in HEART_DISEASE)} in {copies}"
        ) from error


def _fault(file: RemoteFile, data: bytes) -> str | None:
    sha256 = hashlib.sha256(data).hexdigest()
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if (len(data), sha256, md5) == (file.size, file.sha256, file.md5):
        return None
    return (
        f"expected {file.size} bytes with SHA-256 {file.sha256} and MD5 {file.md5}, found "
        f"{len(data)} bytes with {sha256} and {md5}"
    )


def _without_network(folder: Path, file: RemoteFile, error: OSError) -> str:
    lines = [
        f"cannot fetch {file.address}: {error}",
        "On a machine with a network, download these files:",
        *(
            f"  {one.address}\n    SHA-256 {one.sha256}\n    MD5     {one.md5}"
            for one in HEART_DISEASE
        ),
        f"Then put them into {folder} and run the same command again,",
        "or run 'fedtwin research data heart-disease --from DIR' with the folder they are in.",
    ]
    return "\n".join(lines)


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as part:
            part.write(data)
            part.flush()
            os.fsync(part.fileno())
        os.chmod(part.name, 0o644)
        Path(part.name).replace(path)
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error

"""Fetching releases from the coordinator, by sites and researchers; nothing is trusted yet."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tuf.api.metadata import TargetFile

from fedtwin_protocol.canonical import sha256_hex
from fedtwin_protocol.channel import grpc, method, open_blocking_channel, open_channel
from fedtwin_protocol.credentials import Credentials
from fedtwin_protocol.errors import ReleaseError
from fedtwin_protocol.refusals import explained
from fedtwin_protocol.release import LARGEST_BYTES, LISTED, STATEMENT
from fedtwin_protocol.signing import envelope_from_bytes
from fedtwin_protocol.tuf_client import TARGETS, Listing, NotThereError, Read, TufClient
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_protocol.wire import parse

PATIENCE_S: Final = 20.0
# A model of 4 GiB over 10 Mbit/s.
TRANSFER_S: Final = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where releases come from.

    Attributes:
        address: the coordinator's `host:port`.
        credentials: the site's or researcher's.
        proxy: an HTTP CONNECT proxy on the way, if any.
    """

    address: str
    credentials: Credentials
    proxy: str | None = None


async def list_releases(source: Source) -> list[pb.ReleaseEntry]:
    """The releases that may be fetched with these credentials.

    Raises:
        LinkError: the coordinator was not reached.
        IdentityError: it refused the certificate.
    """
    async with open_channel(source.address, source.credentials, source.proxy) as channel:
        try:
            data = await channel.unary_unary(method("ListReleases"))(
                pb.ListReleasesRequest().SerializeToString(), timeout=PATIENCE_S
            )
        except grpc.aio.AioRpcError as error:
            raise explained(error, source.address) from error
    return list(parse(pb.ListReleasesReply, data).releases)


async def ask_log(
    source: Source, held_size: int = 0, study: str = "", version: int = 0
) -> pb.LogNews:
    """The newest head of the public log, with proofs; nothing is believed yet.

    Args:
        source: where from.
        held_size: of the head that is held.
        study: whose entries to prove.
        version: of its plan.

    Raises:
        LinkError: the coordinator was not reached.
        IdentityError: it refused the certificate.
    """
    request = pb.AskLogRequest(held_size=held_size, study=study, version=version)
    async with open_channel(source.address, source.credentials, source.proxy) as channel:
        try:
            data = await channel.unary_unary(method("AskLog"))(
                request.SerializeToString(), timeout=PATIENCE_S
            )
        except grpc.aio.AioRpcError as error:
            raise explained(error, source.address) from error
    return parse(pb.LogNews, data)


@contextmanager
def reading(source: Source) -> Iterator[Read]:
    """A function that reads the coordinator's files in pieces, in the calling thread.

    It reads no further than it is asked to, so that whoever counts can stop.

    Raises:
        NotThereError: there is no such file.
        LinkError: the coordinator was not reached.
        IdentityError: it refused the certificate.
    """
    with open_blocking_channel(source.address, source.credentials, source.proxy) as channel:

        def read(path: str) -> Iterator[bytes]:
            request = pb.FetchFileRequest(path=path).SerializeToString()
            call = channel.unary_stream(method("FetchFile"))(request, timeout=TRANSFER_S)
            try:
                for data in call:
                    yield parse(pb.FileChunk, data).data
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.NOT_FOUND:
                    raise NotThereError(str(error.details())) from error
                raise explained(error, source.address) from error
            finally:
                call.cancel()

        yield read


def fetch_release(
    client: TufClient, listing: Listing, read: Read, study: str, version: int
) -> dict[str, bytes]:
    """The files of a listed release, each as the signers listed it.

    Args:
        client: that refreshed.
        listing: the list that it believes.
        read: the coordinator's files.
        study: its name.
        version: of the plan; 0 is the newest.

    Raises:
        ReleaseError: there is none, or a file is not what the list says.
    """
    chosen = version or max(listing.versions(study), default=0)
    targets = listing.of(study, chosen)
    if not targets:
        names = sorted({path.split("/")[0] for path in listing.files})
        known = ", ".join(f"{name} {listing.versions(name)[-1]}" for name in names) or "none yet"
        raise ReleaseError(f"there is no release {study[:80]} {version or ''}; there are: {known}")
    files = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, target in targets.items():
            if name not in LISTED or target.length > LARGEST_BYTES[name]:
                raise ReleaseError(
                    f"the list names {name[:80]}, which no release has, or too large"
                )
            files[name] = client.download(f"{study}/{chosen}/{name}", target, Path(folder))
    files[STATEMENT] = _bounded(read(f"{TARGETS}{study}/{chosen}/{STATEMENT}"))
    return files


def check_against_list(files: Mapping[str, bytes], targets: Mapping[str, TargetFile]) -> None:
    """A release's files, the signed statement included, are those of the list.

    Args:
        files: contents by name.
        targets: of that release, by name.

    Raises:
        ReleaseError: one differs: an old model, or parts of two releases.
        SignatureError: the statement is none.
    """
    statement = sha256_hex(envelope_from_bytes(files.get(STATEMENT, b"")).body)
    for name in LISTED:
        target, data = targets.get(name), files.get(name)
        if target is None or data is None:
            raise ReleaseError(f"{name} is not on the list of releases, or is absent")
        found = (target.length, target.hashes.get("sha256"), target.custom.get("statement"))
        if found != (len(data), sha256_hex(data), statement):
            raise ReleaseError(
                f"{name} is not the one on the list of releases: it was changed, is older, or "
                "belongs to another release"
            )


def _bounded(pieces: Iterator[bytes]) -> bytes:
    """The statement: its signatures are not listed, so its length is limited here."""
    data = b""
    for piece in pieces:
        data += piece
        if len(data) > LARGEST_BYTES[STATEMENT]:
            raise ReleaseError(f"{STATEMENT} has more than {LARGEST_BYTES[STATEMENT]} bytes")
    return data

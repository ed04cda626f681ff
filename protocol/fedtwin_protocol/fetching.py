"""Fetching releases from the coordinator, by sites and researchers; nothing is trusted yet."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fedtwin_protocol.channel import grpc, method, open_channel
from fedtwin_protocol.credentials import Credentials
from fedtwin_protocol.errors import ReleaseError
from fedtwin_protocol.refusals import explained
from fedtwin_protocol.release import LARGEST_BYTES
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_protocol.wire import parse

PATIENCE_S: Final = 20.0
Progress = Callable[[str, int, int], None]


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


async def fetch_release(
    source: Source, study: str, version: int = 0, progress: Progress | None = None
) -> dict[str, bytes]:
    """The files of a release, by name, not yet verified.

    Args:
        source: where from.
        study: its name.
        version: of the plan; 0 is the newest.
        progress: told file, bytes so far, bytes in all.

    Raises:
        ReleaseError: there is none, or more is sent than a release may hold.
        LinkError: the coordinator was not reached.
        IdentityError: it refused the certificate.
    """
    request = pb.FetchReleaseRequest(study=study, version=version).SerializeToString()
    parts: dict[str, list[bytes]] = {}
    received: dict[str, int] = {}
    async with open_channel(source.address, source.credentials, source.proxy) as channel:
        try:
            async for data in channel.unary_stream(method("FetchRelease"))(request):
                chunk = parse(pb.ReleaseChunk, data)
                _check(chunk, received)
                parts.setdefault(chunk.file, []).append(chunk.data)
                received[chunk.file] = received.get(chunk.file, 0) + len(chunk.data)
                if progress is not None:
                    progress(chunk.file, received[chunk.file], chunk.size)
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                raise ReleaseError(str(error.details())) from error
            raise explained(error, source.address) from error
    return {name: b"".join(data) for name, data in parts.items()}


def _check(chunk: pb.ReleaseChunk, received: dict[str, int]) -> None:
    largest = LARGEST_BYTES.get(chunk.file)
    if largest is None:
        raise ReleaseError(f"the coordinator sends a file that no release has: {chunk.file[:80]}")
    before = received.get(chunk.file, 0)
    if chunk.offset != before or before + len(chunk.data) > largest:
        raise ReleaseError(f"{chunk.file} comes out of order, or has more than {largest} bytes")

"""A researcher's certificate is renewed by the way, when releases are fetched."""

from dataclasses import replace
from pathlib import Path

from fedtwin_protocol.channel import grpc, open_channel
from fedtwin_protocol.enrolment import renew
from fedtwin_protocol.errors import LinkError
from fedtwin_protocol.fetching import Source


async def renewed(source: Source, folder: Path) -> Source:
    """The same source with the next certificate, which is kept in `folder`.

    Raises:
        LinkError: the coordinator refused it, or was not reached.
    """
    async with open_channel(source.address, source.credentials, source.proxy) as channel:
        try:
            fresh = await renew(channel, folder, source.credentials)
        except grpc.aio.AioRpcError as error:
            raise LinkError(
                f"the coordinator at {source.address} did not renew the certificate: "
                f"{error.details()}"
            ) from error
    return replace(source, credentials=fresh)

"""The party's half of getting certificates: a key made here, a request sent, a chain received.

The private key never leaves this machine. The first certificate is asked for with an invitation;
each further one with the certificate before it, over the same mutually authenticated port.
"""

import asyncio
from base64 import b64decode
from importlib.metadata import version
from pathlib import Path
from typing import Final

from fedtwin_protocol.channel import grpc, method, open_channel
from fedtwin_protocol.credentials import Credentials, new_key_and_request, save_credentials
from fedtwin_protocol.errors import IdentityError, InvitationError, LinkError
from fedtwin_protocol.invitation import Invitation
from fedtwin_protocol.refusals import REFUSED, explained
from fedtwin_protocol.site_key import keep_site_key
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_protocol.wire import parse

PATIENCE_S: Final = 20.0


async def enrol(
    invitation: Invitation, folder: Path, address: str | None = None, proxy: str | None = None
) -> pb.IssuedCredentials:
    """Spend an invitation on a first certificate and save it with its key.

    Args:
        invitation: what the consortium handed over.
        folder: where key and chain are saved.
        address: where to dial, if not where the invitation says.
        proxy: an HTTP CONNECT proxy on the way.

    Raises:
        InvitationError: the coordinator does not accept it; the sentence says why.
        LinkError: the coordinator was not reached.
    """
    key_pem, request = new_key_and_request()
    message = pb.EnrolRequest(
        request=request,
        software=f"fedtwin {version('fedtwin')}",
        invitation_id=invitation.invitation_id,
        signing_key=_signing_key(folder) if invitation.role == "site" else b"",
    )
    target = address or invitation.address
    async with open_channel(target, invitation.bootstrap_credentials(), proxy) as channel:
        try:
            reply = await channel.unary_unary(method("Enrol"))(
                message.SerializeToString(), timeout=PATIENCE_S
            )
        except grpc.aio.AioRpcError as error:
            raise _explain(error, target) from error
    issued = parse(pb.IssuedCredentials, reply)
    save_credentials(folder, _joined(key_pem, issued))
    return issued


async def renew(channel: grpc.aio.Channel, folder: Path, current: Credentials) -> Credentials:
    """Get the next certificate, for a new key, and save both.

    Raises:
        grpc.aio.AioRpcError: the coordinator refused, or was not reached.
        IdentityError: it issued a certificate for somebody else.
    """
    key_pem, request = new_key_and_request()
    reply = await channel.unary_unary(method("Renew"))(
        pb.RenewRequest(
            request=request,
            signing_key=_signing_key(folder) if current.identity.role == "site" else b"",
        ).SerializeToString(),
        timeout=PATIENCE_S,
    )
    fresh = _joined(key_pem, parse(pb.IssuedCredentials, reply))
    if fresh.identity.uri != current.identity.uri:
        raise IdentityError(
            f"expected a certificate for {current.identity.uri}, got one for {fresh.identity.uri}"
        )
    await asyncio.to_thread(save_credentials, folder, fresh)
    return fresh


def _signing_key(folder: Path) -> bytes:
    return b64decode(keep_site_key(folder).public)


def _joined(key_pem: bytes, issued: pb.IssuedCredentials) -> Credentials:
    return Credentials(key_pem=key_pem, chain_pem=issued.chain_pem, roots_pem=issued.roots_pem)


def _explain(error: grpc.aio.AioRpcError, address: str) -> InvitationError | LinkError:
    if error.code() in REFUSED:
        return InvitationError(f"the coordinator refused the invitation: {error.details()}")
    return LinkError(f"{explained(error, address)}")

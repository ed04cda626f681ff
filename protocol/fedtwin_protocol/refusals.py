"""Why a connection was refused, in words for the person who can mend it.

grpcio tells of a failed TLS handshake only in the words of its core, and tells each end only what
that end saw. Here such words become sentences: for the coordinator's log about a caller, and for
a party's log about the coordinator it dialled.
"""

from dataclasses import dataclass
from typing import Final

from fedtwin_protocol.channel import grpc
from fedtwin_protocol.errors import IdentityError, LinkError

REFUSED: Final = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})
REPLACED: Final = grpc.StatusCode.ABORTED


@dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """One way in which a handshake fails.

    Attributes:
        marks: what the core writes about it; any of them.
        caller: the sentence about a caller, in the coordinator's log.
        dialled: the sentence about the coordinator, at the party that dialled it.
    """

    marks: tuple[str, ...]
    caller: str
    dialled: str


CAUSES: Final = (
    Cause(
        marks=("certificate has expired",),
        caller="the peer's certificate has expired: it renews or enrols again; if it holds by the "
        "peer's clock, one of the two clocks is wrong",
        dialled="its certificate has expired by the clock of this computer: compare the clock with "
        "the coordinator's",
    ),
    Cause(
        marks=("certificate is not yet valid",),
        caller="the peer's certificate is not valid yet: compare this computer's clock with the "
        "peer's",
        dialled="its certificate is not valid yet by the clock of this computer: compare the clock "
        "with the coordinator's",
    ),
    Cause(
        marks=("unsupported certificate purpose",),
        caller="the peer's certificate was made for another use",
        dialled="it shows a certificate that is no coordinator's: another party answers in its "
        "place",
    ),
    Cause(
        marks=("CERTIFICATE_VERIFY_FAILED",),
        caller="the peer's certificate was not issued by this consortium",
        dialled="it shows a certificate that this consortium did not issue: a firewall opens TLS "
        "connections (TLS interception), or another machine answers",
    ),
    Cause(
        marks=("Hostname Verification Check failed",),
        caller="the peer's certificate is for another host",
        dialled="its certificate is not for that name: dial a name that was given with --address "
        "when the coordinator was set up",
    ),
    Cause(
        marks=("PEER_DID_NOT_RETURN_A_CERTIFICATE",),
        caller="the peer showed no certificate",
        dialled="it showed no certificate",
    ),
    Cause(
        marks=("NO_SHARED_CIPHER", "UNSUPPORTED_PROTOCOL", "HANDSHAKE_FAILURE", "PROTOCOL_VERSION"),
        caller="the peer offered no TLS 1.3",
        dialled="it offers no TLS 1.3: something between filters it, or another program answers",
    ),
    Cause(
        marks=("WRONG_VERSION_NUMBER", "HTTP_REQUEST"),
        caller="the peer does not speak TLS",
        dialled="it does not speak TLS: another program answers there",
    ),
    Cause(
        marks=("Handshake read failed (Endpoint closing)", "Timeout occurred"),
        caller="the peer did not go on in time",
        dialled="it did not answer in time while the connection was set up: packets get lost on "
        "the way, or something filters TLS",
    ),
    Cause(
        marks=("Socket closed",),
        caller="the peer closed the connection",
        dialled="it ended the connection: it was stopped, or it does not accept this certificate, "
        "and its log says why",
    ),
    Cause(
        marks=("Connection refused",),
        caller="nobody listens there",
        dialled="nobody listens there at the moment",
    ),
)


def cause_of(words: str) -> Cause | None:
    """The cause that the core's words speak of, if it is a known one."""
    return next((each for each in CAUSES if any(mark in words for mark in each.marks)), None)


def explained(error: grpc.aio.AioRpcError, address: str) -> IdentityError | LinkError:
    """What a failed call to the coordinator means to the party that dialled.

    Args:
        error: as grpcio raised it.
        address: what was dialled.

    Returns:
        An IdentityError if the coordinator knows us and refuses, else a LinkError.
    """
    details = str(error.details() or error.code().name)
    if error.code() in REFUSED:
        return IdentityError(f"the coordinator at {address} refuses this party: {details}")
    if error.code() != grpc.StatusCode.UNAVAILABLE:
        return LinkError(f"the coordinator at {address} ended the call: {details}")
    cause = cause_of(details)
    reason = details.rpartition("last error: ")[2] if cause is None else cause.dialled
    return LinkError(f"the coordinator at {address} was not reached: {reason}")

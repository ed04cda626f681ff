"""Parsing what a peer sent, without telling the peer how we parse.

Messages come as bytes and are parsed here: a failure names the call and nothing of our classes.
"""

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from fedtwin_protocol.blobs import BlobRef
from fedtwin_protocol.errors import WireError
from fedtwin_protocol.v1 import exchange_pb2 as pb

PROTOCOL_VERSION = 1
M = TypeVar("M", bound=Message)


def parse(kind: type[M], data: bytes) -> M:
    """Parse one message.

    Raises:
        WireError: the bytes are not such a message, or hold fields we do not know (a peer of our
            own version sends none, and unread bytes could smuggle anything past admission).
    """
    message = kind()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise WireError("the message cannot be read") from error
    known = message.ByteSize()
    message.DiscardUnknownFields()
    if message.ByteSize() != known:
        raise WireError("the message holds fields that this version does not know")
    return message


def blob_ref(blob: pb.Blob, largest: int) -> BlobRef:
    """Check a blob's reference.

    Raises:
        WireError: not a SHA-256, or larger than the study allows.
    """
    if len(blob.sha256) != 32 or not 0 < blob.size <= largest:
        raise WireError(
            f"a content of {blob.size} bytes was announced where at most {largest} are expected"
        )
    return BlobRef(sha256=blob.sha256, size=blob.size)

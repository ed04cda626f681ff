"""How the agent and its training worker talk: length-prefixed frames over the worker's pipes.

A frame is a JSON head and the bytes of a content. The worker has no network and no certificate; it
is told what to compute and answers on its standard output.
"""

import json
import struct
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

from fedtwin_protocol.errors import WireError

PREFIX: Final = struct.Struct("<II")
LARGEST_HEAD: Final = 64 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """An order to the worker, or its reply.

    Attributes:
        head: plain JSON values; an order has `op`, a reply `ok`.
        body: a serialised content, or nothing.
    """

    head: dict[str, Any]
    body: bytes = field(default=b"")

    def to_bytes(self) -> bytes:
        """The frame as it travels."""
        head = json.dumps(self.head).encode()
        return PREFIX.pack(len(head), len(self.body)) + head + self.body


def sizes(prefix: bytes) -> tuple[int, int]:
    """Lengths of head and body.

    Raises:
        WireError: not a frame's beginning.
    """
    head, body = PREFIX.unpack(prefix)
    if head > LARGEST_HEAD or body > LARGEST_HEAD:
        raise WireError("the worker and the agent lost step")
    return head, body


def read_frame(stream: BinaryIO) -> Frame | None:
    """The next frame, or none at the end of the stream."""
    prefix = stream.read(PREFIX.size)
    if len(prefix) < PREFIX.size:
        return None
    head, body = sizes(prefix)
    return Frame(head=json.loads(stream.read(head)), body=stream.read(body))

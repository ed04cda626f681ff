"""Payloads as contents: inline while they are small, a blob of frames when they are large."""

import mmap
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import Queue
from typing import Final

import numpy as np

from fedtwin_protocol.blobs import BlobRef, BlobStore
from fedtwin_protocol.errors import WireError
from fedtwin_protocol.payload import INLINE_LIMIT, Array, Head, Payload, heads_of, pack, unpack
from fedtwin_protocol.v1 import exchange_pb2 as pb

PIECE: Final = 256 * 1024
AHEAD: Final = 4


def make_content(payload: Payload, blobs: BlobStore) -> pb.Content:
    """Pack a payload; arrays of more than 64 KiB go to the blob store."""
    records, frames = pack(payload)
    if sum(len(frame) for frame in frames) <= INLINE_LIMIT:
        return pb.Content(records=records, inline=b"".join(frames))
    ref = blobs.put(frames)
    return pb.Content(records=records, blob=pb.Blob(sha256=ref.sha256, size=ref.size))


def read_content(content: pb.Content, blobs: BlobStore) -> Payload:
    """Unpack a content whose blob, if it has one, is complete.

    Raises:
        WireError: its table and its bytes do not agree.
    """
    ref = ref_of(content)
    if ref is None:
        return unpack(content.records, content.inline)
    with blobs.path(ref.sha256).open("rb") as file:
        frames = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return unpack(content.records, memoryview(frames))


def ref_of(content: pb.Content) -> BlobRef | None:
    """The content's blob, if its arrays lie in one."""
    if content.WhichOneof("frames") != "blob":
        return None
    return BlobRef(sha256=content.blob.sha256, size=content.blob.size)


def content_bytes(content: pb.Content) -> int:
    """Length of the content's frames."""
    ref = ref_of(content)
    return len(content.inline) if ref is None else ref.size


def content_heads(content: pb.Content) -> list[Head]:
    """The table of the content's arrays.

    Raises:
        WireError: it does not fill the frames exactly.
    """
    return heads_of(content.records, content_bytes(content))


def pieces(
    content: pb.Content, heads: Sequence[Head], blobs: BlobStore
) -> Iterator[tuple[Head, Array]]:
    """Walk through the arrays in pieces of at most 256 KiB, so that memory stays flat.

    A piece holds until the next one is asked for.
    """
    with _reader(content, blobs) as read:
        for head in heads:
            offset, end = head.offset, head.offset + head.nbytes
            while offset < end:
                length = min(PIECE, end - offset)
                yield head, np.frombuffer(read(offset, length), dtype=head.dtype)
                offset += length


def measure(content: pb.Content, blobs: BlobStore) -> float:
    """Euclidean norm of all numbers of a content; infinite if any of them is not finite."""
    total = 0.0
    for _, piece in pieces(content, content_heads(content), blobs):
        total += _square(piece)
        if not np.isfinite(total):
            return float("inf")
    return float(np.sqrt(total))


def distance(content: pb.Content, other: pb.Content, blobs: BlobStore) -> float:
    """Euclidean norm of the difference of two contents with equal array tables.

    Infinite if any number is not finite.

    Raises:
        WireError: the tables differ.
    """
    heads = content_heads(content)
    if heads != content_heads(other):
        raise WireError("contents with different array tables have no distance")
    total = 0.0
    walks = zip(pieces(content, heads, blobs), pieces(other, heads, blobs), strict=True)
    for (_, piece), (_, from_) in walks:
        with np.errstate(over="ignore", invalid="ignore"):
            total += _square(piece - from_)
        if not np.isfinite(total):
            return float("inf")
    return float(np.sqrt(total))


def _square(piece: Array) -> float:
    """Sum of squares; in float32 it is good to 1 in 10,000, and beyond its range in float64."""
    with np.errstate(over="ignore", invalid="ignore"):
        if piece.dtype == np.float32 and np.isfinite(quick := float(np.vdot(piece, piece))):
            return quick
        values = piece.astype(np.float64, copy=False)
        return float(np.vdot(values, values))


def weighted_mean(
    contents: Sequence[pb.Content], weights: Sequence[float], blobs: BlobStore
) -> pb.Content:
    """The weighted mean of contents with equal array tables, piece by piece.

    Args:
        contents: at least one; only their arrays count.
        weights: positive, one a content.
        blobs: where their blobs lie, and where the mean goes.

    Raises:
        WireError: the tables differ.
    """
    tables = [content_heads(content) for content in contents]
    if any(table != tables[0] for table in tables):
        raise WireError("updates with different array tables cannot be averaged")
    total = float(sum(weights))
    shares = [weight / total for weight in weights]
    records = [record for record in contents[0].records if record.kind == pb.Record.ARRAYS]

    rooms = np.empty((AHEAD + 2, 2, PIECE), np.uint8)

    def frames() -> Iterator[memoryview]:
        walks = [
            pieces(content, table, blobs) for content, table in zip(contents, tables, strict=True)
        ]
        for number, parts in enumerate(zip(*walks, strict=True)):
            room = rooms[number % len(rooms)]
            yield _mean_piece([piece for _, piece in parts], shares, room)

    if content_bytes(contents[0]) <= INLINE_LIMIT:
        return pb.Content(records=records, inline=b"".join(bytes(frame) for frame in frames()))
    ref = blobs.put(_ahead(frames()))
    return pb.Content(records=records, blob=pb.Blob(sha256=ref.sha256, size=ref.size))


def _ahead(frames: Iterator[memoryview]) -> Iterator[memoryview]:
    """Work frames out in a second thread, a few ahead of the one that hashes and writes them."""
    line: Queue[memoryview | None] = Queue(AHEAD)

    def work() -> None:
        try:
            for frame in frames:
                line.put(frame)
        finally:
            line.put(None)

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        while (frame := line.get()) is not None:
            yield frame
        working.result()


def _mean_piece(parts: Sequence[Array], shares: Sequence[float], room: Array) -> memoryview:
    """The weighted mean of pieces, as bytes that hold until the next call with the same room."""
    dtype = parts[0].dtype
    if dtype.kind != "f":
        raise WireError(f"arrays of type {dtype} cannot be averaged")
    mean, part = (row[: parts[0].nbytes].view(dtype) for row in room)
    np.multiply(parts[0], dtype.type(shares[0]), out=mean)
    for piece, share in zip(parts[1:], shares[1:], strict=True):
        np.multiply(piece, dtype.type(share), out=part)
        mean += part
    return memoryview(mean.view(np.uint8).data)


@contextmanager
def _reader(content: pb.Content, blobs: BlobStore) -> Iterator[Callable[[int, int], memoryview]]:
    """A function that gives so many bytes of a content's frames from an offset on.

    They lie in one buffer, which the next call fills anew: fresh memory for every piece of a large
    model costs more than to read it.
    """
    ref = ref_of(content)
    if ref is None:
        inline = memoryview(content.inline)
        yield lambda offset, length: inline[offset : offset + length]
        return
    buffer = memoryview(bytearray(min(PIECE, ref.size)))
    with blobs.path(ref.sha256).open("rb", buffering=0) as file:

        def read(offset: int, length: int) -> memoryview:
            file.seek(offset)
            filled = 0
            while filled < length and (size := file.readinto(buffer[filled:length])):
                filled += size
            return buffer[:filled]

        yield read

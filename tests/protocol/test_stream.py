"""Two ends of a link in memory: what is asked for once comes once, and goes on where it broke."""

import asyncio
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedtwin_protocol.blobs import CHUNK, MOST_SPARES, PART, PART_KEPT, PROGRESS, BlobStore
from fedtwin_protocol.chunks import Chunk, chunk_from_frame, is_chunk
from fedtwin_protocol.errors import WireError
from fedtwin_protocol.stream import MOST_WAITING, Outlet, Traffic
from fedtwin_protocol.v1 import exchange_pb2 as pb

SIZE = 4 * CHUNK + 17


class Wire:
    """A sender and a receiver; the wire can be cut after so many chunks."""

    def __init__(self, sender: BlobStore, receiver: BlobStore, cut_after: int = 1000) -> None:
        self.bytes, self.wants, self._left = 0, [], cut_after
        self.sending = Traffic(sender, lambda _: None, self._carry)
        self.receiving = Traffic(receiver, self._ask, self._never)

    def _ask(self, want: pb.Want) -> None:
        self.wants.append(want.offset)
        self.sending.on_want(want)

    async def _carry(self, frame: bytes) -> None:
        chunk = chunk_from_frame(frame)
        await asyncio.sleep(0)
        if self._left == 0:
            self.sending.close()
            self.receiving.close()
            return
        self._left -= 1
        self.bytes += len(chunk.data)
        self.receiving.on_chunk(chunk)

    async def _never(self, frame: bytes) -> None:
        raise AssertionError(f"sent back: {len(frame)} bytes")


@pytest.fixture
def stores(tmp_path: Path) -> tuple[BlobStore, BlobStore]:
    return BlobStore(tmp_path / "sender"), BlobStore(tmp_path / "receiver")


def test_a_broken_transfer_goes_on_where_it_broke(stores: tuple[BlobStore, BlobStore]) -> None:
    sender, receiver = stores
    ref = sender.put([os.urandom(SIZE)])

    async def scenario() -> None:
        first = Wire(sender, receiver, cut_after=3)
        first.sending.offer(ref)
        with pytest.raises(WireError, match="the link ended before the content was complete"):
            await first.receiving.fetch(ref)
        assert first.bytes == 3 * CHUNK
        assert not receiver.has(ref.sha256)
        second = Wire(sender, receiver)
        second.sending.offer(ref)
        await second.receiving.fetch(ref)
        assert second.wants == [3 * CHUNK]
        assert first.bytes + second.bytes == SIZE

    asyncio.run(scenario())
    assert receiver.path(ref.sha256).read_bytes() == sender.path(ref.sha256).read_bytes()


def test_a_content_comes_once(stores: tuple[BlobStore, BlobStore]) -> None:
    """Asked for by several at once, and again later."""
    sender, receiver = stores
    ref = sender.put([os.urandom(SIZE)])

    async def scenario() -> None:
        wire = Wire(sender, receiver)
        wire.sending.offer(ref)
        await asyncio.gather(*(wire.receiving.fetch(ref) for _ in range(3)))
        await wire.receiving.fetch(ref)
        assert (wire.wants, wire.bytes) == ([0], SIZE)

    asyncio.run(scenario())


def test_two_peers_send_the_same_content(stores: tuple[BlobStore, BlobStore]) -> None:
    """Chunk by chunk in turn, the first of them resuming: the content is whole and right."""
    sender, receiver = stores
    data = os.urandom(SIZE)
    ref = sender.put([data])
    begun = receiver.receive(ref)
    begun.append(0, data[:CHUNK])
    begun.close()
    one, other = receiver.receive(ref), receiver.receive(ref)
    assert (one.offset, other.offset) == (CHUNK, 0)
    for offset in range(0, SIZE, CHUNK):
        other.append(offset, data[offset : offset + CHUNK])
        if offset:
            one.append(offset, data[offset : offset + CHUNK])
    assert receiver.path(ref.sha256).read_bytes() == data
    assert [path.name for path in receiver.path(ref.sha256).parent.iterdir()] == [ref.sha256.hex()]


def test_a_damaged_part_is_found(stores: tuple[BlobStore, BlobStore]) -> None:
    """What lies there from before counts only if the whole has the promised hash."""
    sender, receiver = stores
    ref = sender.put([os.urandom(SIZE)])
    part = receiver.path(ref.sha256).with_name(ref.sha256.hex() + PART)
    part.write_bytes(b"x" * CHUNK)
    part.with_name(part.name + PROGRESS).write_bytes(CHUNK.to_bytes(8, "little"))

    async def scenario() -> None:
        wire = Wire(sender, receiver)
        wire.sending.offer(ref)
        with pytest.raises(WireError, match="promised SHA-256"):
            await wire.receiving.fetch(ref)
        assert not receiver.has(ref.sha256)
        await wire.receiving.fetch(ref)
        assert wire.wants == [CHUNK, 0]

    asyncio.run(scenario())
    assert receiver.has(ref.sha256)


def test_asking_again_and_again_opens_one_file(stores: tuple[BlobStore, BlobStore]) -> None:
    sender, _ = stores
    ref = sender.put([os.urandom(SIZE)])
    sent: list[int] = []

    async def blocked(frame: bytes) -> None:
        sent.append(chunk_from_frame(frame).offset)
        await asyncio.sleep(3600)

    async def scenario() -> int:
        traffic = Traffic(sender, lambda _: None, blocked)
        traffic.offer(ref)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(500):
            traffic.on_want(pb.Want(sha256=ref.sha256, offset=0))
            await asyncio.sleep(0)
        opened = len(os.listdir("/proc/self/fd")) - before
        traffic.close()
        return opened

    assert asyncio.run(scenario()) <= 2


def test_what_was_not_offered_is_not_served(stores: tuple[BlobStore, BlobStore]) -> None:
    sender, receiver = stores
    ref = sender.put([b"secret"])

    async def scenario() -> None:
        wire = Wire(sender, receiver)
        with pytest.raises(WireError, match="was not offered to this peer"):
            wire.sending.on_want(pb.Want(sha256=ref.sha256))
        wire.sending.offer(ref)
        with pytest.raises(WireError, match="was not offered to this peer"):
            wire.sending.on_want(pb.Want(sha256=ref.sha256, offset=ref.size + 1))

    asyncio.run(scenario())


def test_a_chunk_nobody_asked_for(stores: tuple[BlobStore, BlobStore]) -> None:
    async def scenario() -> None:
        wire = Wire(*stores)
        with pytest.raises(WireError, match="a chunk came that nobody asked for"):
            wire.receiving.on_chunk(Chunk(sha256=b"\x01" * 32, offset=0, data=b"x"))

    asyncio.run(scenario())


@pytest.mark.parametrize("room", [2 * CHUNK + 5, 2 * CHUNK, SIZE - 3])
def test_a_full_disk_is_a_sentence(stores: tuple[BlobStore, BlobStore], room: int) -> None:
    """And with room again, whole chunks that had arrived are not sent a second time."""
    sender, receiver = stores
    ref = sender.put([os.urandom(SIZE)])

    async def scenario() -> None:
        wire = Wire(sender, receiver)
        wire.sending.offer(ref)
        sentence = "cannot be written on this side: File too large"
        with no_files_beyond(room), pytest.raises(WireError, match=sentence):
            await wire.receiving.fetch(ref)
        wire.sending.close()
        again = Wire(sender, receiver)
        again.sending.offer(ref)
        await again.receiving.fetch(ref)
        assert again.wants == [room - room % CHUNK]

    asyncio.run(scenario())
    assert receiver.path(ref.sha256).read_bytes() == sender.path(ref.sha256).read_bytes()


@contextmanager
def no_files_beyond(size: int) -> Iterator[None]:
    """Writing behind `size` bytes fails in this process, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_peer_that_does_not_read() -> None:
    outlet: Outlet[pb.ToSite] = Outlet()
    for _ in range(MOST_WAITING):
        outlet.send(pb.ToSite())
    with pytest.raises(WireError, match="the peer does not read"):
        outlet.send(pb.ToSite())


def test_a_frame_is_a_chunk_or_a_message_and_never_both() -> None:
    chunk = Chunk(sha256=b"\x07" * 32, offset=2**40 + 3, data=b"\x00some bytes")
    frame = chunk.to_frame()
    assert is_chunk(frame)
    found = chunk_from_frame(frame)
    assert (found.sha256, found.offset) == (chunk.sha256, chunk.offset)
    assert bytes(found.data) == chunk.data
    message = pb.FromSite(pulse=pb.Pulse(sent_ms=0))
    assert not is_chunk(message.SerializeToString())
    assert not is_chunk(b"")


@pytest.mark.parametrize("size", [1, 40, 41 + 1024 * 1024 + 1])
def test_a_frame_of_another_length_is_no_chunk(size: int) -> None:
    with pytest.raises(WireError, match=f"a chunk's frame of {size} bytes came"):
        chunk_from_frame(b"\x00" * size)


@pytest.mark.parametrize("size", [CHUNK, SIZE, SIZE + 3 * CHUNK])
def test_a_content_in_a_used_file_is_whole_and_no_more(
    stores: tuple[BlobStore, BlobStore], size: int
) -> None:
    """Sent into the file of an older content, and stored into one, longer or shorter."""
    sender, receiver = stores
    for store in stores:
        store.recycle([store.put([b"o" * SIZE]).sha256])
        assert [path.name[:6] for path in store.path(b"any").parent.iterdir()] == ["spare-"]
    data = os.urandom(size)
    ref = sender.put([data])

    async def scenario() -> None:
        wire = Wire(sender, receiver, cut_after=1)
        wire.sending.offer(ref)
        if size > CHUNK:
            with pytest.raises(WireError, match="the link ended"):
                await wire.receiving.fetch(ref)
        again = Wire(sender, receiver)
        again.sending.offer(ref)
        await again.receiving.fetch(ref)
        assert again.wants in ([CHUNK], [0])

    asyncio.run(scenario())
    for store in stores:
        assert store.path(ref.sha256).read_bytes() == data
        store.drop_spares()
        assert [path.name for path in store.path(b"any").parent.iterdir()] == [ref.sha256.hex()]


def test_a_few_used_files_are_kept_and_no_more(stores: tuple[BlobStore, BlobStore]) -> None:
    store, _ = stores
    store.recycle([store.put([number.to_bytes(4, "little")]).sha256 for number in range(30)])
    assert len(list(store.path(b"any").parent.iterdir())) == MOST_SPARES


def test_a_start_removes_half_written_files_and_keeps_what_can_be_resumed(
    stores: tuple[BlobStore, BlobStore],
) -> None:
    store, _ = stores
    whole = store.put([b"whole"])
    folder = store.path(whole.sha256).parent
    for name in ("draft-1-abc", "draft-2-new", "aa" + PART, "aa" + PART + PROGRESS, "bb" + PART):
        (folder / name).write_bytes(b"x")
    now = datetime.now(UTC)
    long_ago = (now - PART_KEPT - timedelta(hours=1)).timestamp()
    for name in ("bb" + PART, "draft-1-abc"):
        os.utime(folder / name, (long_ago, long_ago))
    os.utime(store.path(whole.sha256), (long_ago, long_ago))
    store.tidy(now)
    left = {path.name for path in folder.iterdir()}
    assert left == {whole.sha256.hex(), "draft-2-new", "aa" + PART, "aa" + PART + PROGRESS}
    store.tidy(now, all_under_way=True)
    assert not store.has(whole.sha256)


def test_room_is_made_for_contents_that_will_come(stores: tuple[BlobStore, BlobStore]) -> None:
    store, _ = stores
    folder = store.path(b"any").parent
    store.prepare(3, SIZE)
    assert [path.stat().st_size for path in folder.iterdir()] == [SIZE] * 3
    store.prepare(3, SIZE)
    store.prepare(2, 2**30)
    assert len(list(folder.iterdir())) == 3, "made again, or more than fits"
    store.put([b"short"])
    assert sorted(path.stat().st_size for path in folder.iterdir()) == [5, SIZE, SIZE]

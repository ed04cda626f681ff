"""Contents too large for a message: chunks that were not agreed, and links that break."""

import asyncio
import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fedtwin_protocol.blobs import CHUNK, BlobStore
from fedtwin_protocol.channel import grpc
from fedtwin_protocol.chunks import Chunk
from fedtwin_protocol.content import make_content
from fedtwin_protocol.payload import Payload
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_server.hub import SiteLink

GOOD = np.array([0.1, -0.2, 0.3]).tobytes()
HASH = hashlib.sha256(GOOD).digest()
NAN = np.array([0.1, np.nan, 0.3]).tobytes()


def promise(sha256: bytes, size: int, values: int = 3) -> pb.Content:
    arrays = {"gradient_sum": np.zeros(values)}
    payload = Payload(arrays={"arrays": arrays}, metrics={"metrics": {"num-examples": 40.0}})
    made = make_content(payload, None)
    made.blob.sha256, made.blob.size = sha256, size
    return made


def chunk(data: bytes, offset: int = 0, sha256: bytes = HASH) -> bytes:
    return Chunk(sha256=sha256, offset=offset, data=data).to_frame()


def answer_to(task: pb.Task, content: pb.Content) -> pb.FromSite:
    answer = pb.Answer(
        task_id=task.task_id,
        study=task.study,
        plan_hash=task.plan_hash,
        round=task.round,
        content=content,
    )
    return pb.FromSite(answer=answer)


UPLOADS = {
    "other bytes": (promise(HASH, 24), [chunk(NAN)], "does not have the promised SHA-256"),
    "more bytes": (promise(HASH, 24), [chunk(GOOD + b"x")], "more than the promised 24 bytes"),
    "a gap": (promise(HASH, 24), [chunk(GOOD[8:], 8)], "expected the chunk at byte 0, got the"),
    "an empty chunk": (promise(HASH, 24), [chunk(b"")], "expected the chunk at byte 0"),
    "a terabyte": (promise(HASH, 10**12), [], "of 1000000000000 bytes was announced where"),
    "nothing": (promise(HASH, 0), [], "of 0 bytes was announced where"),
    "no hash": (promise(b"abc", 24), [], "was announced where"),
    "another table": (promise(HASH, 24, 4), [chunk(GOOD)], "arrays claim 32 bytes, but 24"),
    "NaN": (
        promise(hashlib.sha256(NAN).digest(), 24),
        [chunk(NAN, sha256=hashlib.sha256(NAN).digest())],
        "not finite",
    ),
}


@pytest.mark.parametrize("name", UPLOADS)
def test_a_bad_upload_is_that_sites_failure(ground: Any, name: str) -> None:
    """And what it brought does not stay on the coordinator's disk."""
    promised, chunks, expected = UPLOADS[name]
    plan = ground.plan(f"upload-{list(UPLOADS).index(name)}")

    async def lie(site: Any, task: pb.Task) -> None:
        if task.kind != "train":
            await ground.honest("mallory")(site, task)
            return
        await site.send(answer_to(task, promised))
        if chunks:
            await site.receive("want")
        for message in chunks:
            await site.send(message)

    async def scenario() -> list[str]:
        async with ground.coordinator() as store:
            players = {name: ground.honest(name) for name in ("aal", "bergen")}
            await ground.carry_out(plan, {**players, "mallory": lie}, store)
            assert ground.state(plan, store) == "finished: "
            expected_model = ground.model_of(plan, "aal", "bergen")
            np.testing.assert_allclose(ground.model(plan, store), expected_model, rtol=1e-12)
            return [event.text for event in store.journal(plan.study) if event.site == "mallory"]

    journal = asyncio.run(scenario())
    assert len(journal) == 3
    assert all(expected in line for line in journal), journal
    assert not list((ground.home.folder / "blobs").iterdir())


UNASKED = {
    "a chunk": (chunk(GOOD), "a chunk came that nobody asked for"),
    "a wish": (
        pb.FromSite(want=pb.Want(sha256=HASH)),
        "a content was asked for that was not offered to this peer",
    ),
    "a second hello": (pb.FromSite(hello=pb.Hello(protocol=1)), "a second hello"),
    "an empty message": (pb.FromSite(), "an empty one"),
    "rubbish": (b"\xff\xff\xff\xff", "the message cannot be read"),
    "a stranger's study": (
        pb.FromSite(decision=pb.Decision(study="unknown-study", take_part=True)),
        "a study that is not here",
    ),
}


@pytest.mark.parametrize("name", UNASKED)
def test_what_was_not_agreed_ends_the_link(ground: Any, name: str) -> None:
    """With a sentence; the study goes on, and the site may dial again."""
    message, expected = UNASKED[name]
    plan = ground.plan(f"unasked-{list(UNASKED).index(name)}", sites__quorum=3)
    ends: list[str] = []

    async def lie(site: Any, task: pb.Task) -> None:
        if task.kind == "train" and not ends:
            await site.send(message)
            try:
                await site.receive("never")
            except grpc.aio.AioRpcError as error:
                ends.append(f"{error.code().name}: {error.details()}")
                raise
        await ground.honest("mallory")(site, task)

    async def scenario() -> None:
        async with ground.coordinator() as store:
            players = {name: ground.honest(name) for name in ("aal", "bergen")}
            await ground.carry_out(plan, {**players, "mallory": lie}, store)
            assert ground.state(plan, store) == "finished: "
            expected_model = ground.model_of(plan, "aal", "bergen", "mallory")
            np.testing.assert_allclose(ground.model(plan, store), expected_model, rtol=1e-12)

    asyncio.run(scenario())
    assert ends[0].startswith("INVALID_ARGUMENT: ")
    assert expected in ends[0]


def test_a_site_that_does_not_read_stops_nobody(tmp_path: Any) -> None:
    """Its link ends; handing out a task or a receipt to it never fails."""
    link = SiteLink("mallory", BlobStore(tmp_path))
    for _ in range(1001):
        link.tell(b"", 0)
    assert link.ended.is_set()
    link.send_task(pb.Task(task_id="1"))
    link.receipt("1", False, "x")


# A large model: both ways, over links that break.

LARGE = {
    "model": {"family": "network", "hidden": [10000, 60]},
    "training": {
        "mechanism": "local_steps",
        "rounds": 1,
        "learning_rate": 0.5,
        "local_steps": 1,
    },
    "aggregation": {"rule": "mean"},
}


@pytest.fixture
def clean(ground: Any) -> Iterator[Any]:
    yield ground
    for path in (ground.home.folder / "blobs").iterdir():
        path.unlink()


def unchanged(task: pb.Task) -> pb.Content:
    """The model itself as an update: the coordinator has it, so nothing is uploaded."""
    made = pb.Content()
    made.CopyFrom(task.content)
    metrics = Payload(metrics={"metrics": {"num-examples": 40.0}})
    made.records.extend(make_content(metrics, None).records)
    return made


def content_to_send_back(ground: Any) -> Any:
    async def answer(site: Any, task: pb.Task) -> None:
        if task.kind == "train":
            await site.answer(task, unchanged(task))
        else:
            await ground.honest("aal")(site, task)
        assert not site.chunks, "unasked"

    return answer


async def heard(site: Any) -> None:
    """Wait until the coordinator has read everything before."""
    await site.send(pb.FromSite(ask_catalogue=pb.AskCatalogue()))
    await site.receive("catalogue")


def test_an_upload_goes_on_where_the_link_broke(clean: Any) -> None:
    plan = clean.plan("broken-upload", **LARGE)
    offsets: list[int] = []

    async def breaking(site: Any, task: pb.Task) -> None:
        if task.kind != "train":
            await clean.honest("mallory")(site, task)
            return
        model = clean.home.blobs().path(task.content.blob.sha256).read_bytes()
        mine = (np.frombuffer(model, "<f4") * np.float32(1.01)).tobytes()
        made = unchanged(task)
        made.blob.sha256 = hashlib.sha256(mine).digest()
        await site.send(answer_to(task, made))
        want = (await site.receive("want")).want
        offsets.append(want.offset)
        end = len(mine) if len(offsets) == 2 else 2 * CHUNK
        for offset in range(want.offset, end, CHUNK):
            await site.send(chunk(mine[offset : offset + CHUNK], offset, want.sha256))
        if len(offsets) == 2:
            assert (await site.receive("received")).received.accepted
        else:
            await heard(site)
            raise ConnectionError

    async def scenario() -> None:
        async with clean.coordinator() as store:
            players = {name: content_to_send_back(clean) for name in ("aal", "bergen")}
            await clean.carry_out(plan, {**players, "mallory": breaking}, store)
            assert clean.state(plan, store) == "finished: "
            (closed,) = store.rounds(plan.study)
            assert closed.sites == ("aal", "bergen", "mallory")

    asyncio.run(scenario())
    assert offsets == [0, 2 * CHUNK]


def test_a_download_starts_where_the_site_asks(clean: Any) -> None:
    """And not before it asks; asked for once more, it starts there and only there."""
    plan = clean.plan("download", **LARGE)
    got: list[int] = []

    async def reading(site: Any, task: pb.Task) -> None:
        if task.kind == "train":
            await heard(site)
            assert not site.chunks
            ref = task.content.blob
            await site.send(pb.FromSite(want=pb.Want(sha256=ref.sha256, offset=2 * CHUNK)))
            position = 2 * CHUNK
            while position < ref.size:
                part = await site.next_chunk()
                assert part.offset == position
                position += len(part.data)
                got.append(len(part.data))
            await site.answer(task, unchanged(task))
            assert sum(got) == ref.size - 2 * CHUNK
        else:
            await clean.honest("mallory")(site, task)

    async def scenario() -> None:
        async with clean.coordinator() as store:
            players = {name: content_to_send_back(clean) for name in ("aal", "bergen")}
            await clean.carry_out(plan, {**players, "mallory": reading}, store)
            assert clean.state(plan, store) == "finished: "

    asyncio.run(scenario())
    assert got


def test_naming_the_model_in_a_bad_answer_does_not_remove_it(clean: Any) -> None:
    plan = clean.plan("model-named", **LARGE)

    async def lie(site: Any, task: pb.Task) -> None:
        if task.kind != "train":
            await clean.honest("mallory")(site, task)
            return
        made = unchanged(task)
        made.records[1].fields[0].value.number = 1e12
        assert not (await site.answer(task, made)).accepted
        assert clean.home.blobs().has(task.content.blob.sha256)

    async def scenario() -> None:
        async with clean.coordinator() as store:
            players = {name: content_to_send_back(clean) for name in ("aal", "bergen")}
            await clean.carry_out(plan, {**players, "mallory": lie}, store)
            assert clean.state(plan, store) == "finished: "
            assert clean.model(plan, store).size > 600_000

    asyncio.run(scenario())

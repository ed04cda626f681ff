"""Large contents of a study's rounds: room made for them, and removed when nobody needs them."""

import asyncio
from collections.abc import Iterable

from fedtwin_protocol.blobs import BlobStore
from fedtwin_protocol.content import ref_of
from fedtwin_protocol.payload import INLINE_LIMIT
from fedtwin_protocol.study import StudyPlan
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_server.store import Store
from fedtwin_server.study_record import wanted_blobs


class RoundContents:
    """The contents of one study.

    Args:
        plan: the study's.
        store: what is still needed.
        blobs: where they lie.
    """

    def __init__(self, plan: StudyPlan, store: Store, blobs: BlobStore) -> None:
        self._plan = plan
        self._store = store
        self._blobs = blobs
        # A Flower strategy may still hold views of files, which must not be written over.
        self._viewed = plan.aggregation.rule == "flower"

    async def make_room(self, size: int, contents: int) -> str:
        """Have files for so many contents of a size, if they are large.

        Returns:
            What the disk has no room for, in a sentence; empty if all is well.
        """
        if size <= INLINE_LIMIT or self._viewed:
            return ""
        try:
            await asyncio.to_thread(self._blobs.prepare, contents, size)
        except OSError as error:
            self._blobs.drop_spares()
            return (
                f"the coordinator's disk has no room for {contents} contents of {size} bytes, as "
                f"a round needs it ({error.strerror}): make room, or answers will be refused"
            )
        return ""

    def drop(self, answers: Iterable[bytes], number: int, announced: set[bytes]) -> None:
        """Remove contents of a closed round, and of models too old for the final mean.

        Args:
            answers: the round's.
            number: the round.
            announced: hashes of contents that answers brought or promised.
        """
        average_last = self._plan.training.average_last
        gone = [pb.Answer.FromString(data).content for data in answers]
        for record in self._store.rounds(self._plan.study, last=average_last + 1):
            if record.round <= number - average_last:
                state = pb.RoundState.FromString(record.state)
                gone += [state.parameters, state.memory]
        refs = {ref.sha256 for content in gone if (ref := ref_of(content)) is not None}
        refs |= announced
        if refs:
            clear = self._blobs.remove if self._viewed else self._blobs.recycle
            clear(refs - wanted_blobs(self._store))

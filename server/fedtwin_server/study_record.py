"""What lies in the store about a study: its plan, its final model, the contents it still needs."""

from typing import Final

from fedtwin_protocol.blobs import BlobStore
from fedtwin_protocol.content import ref_of, weighted_mean
from fedtwin_protocol.errors import FedtwinError
from fedtwin_protocol.signing import envelope_from_bytes
from fedtwin_protocol.study import StudyPlan, plan_from_bytes
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_server.candidates import CandidateBook
from fedtwin_server.store import Store, StudyRecord

UPDATES: Final = ("train", "train.masked")
"""Kinds of answers that may bring large contents, and are done with when their round is closed."""


def final_parameters(store: Store, plan: StudyPlan, blobs: BlobStore) -> pb.Content:
    """The model a study ends with: the mean of the last rounds' models that were kept."""
    last = store.rounds(plan.study, last=plan.training.average_last)
    wrong = CandidateBook(store.connection).thrown_away(plan.hash)
    # After a round that went wrong the last good model stands in the record once more.
    kept = [record for record in last if record.round not in wrong] or last[-1:]
    contents = [pb.RoundState.FromString(record.state).parameters for record in kept]
    return weighted_mean(contents, [1.0] * len(contents), blobs)


def wanted_blobs(store: Store) -> set[bytes]:
    """Hashes of the blobs that some study still needs."""
    contents: list[pb.Content] = []
    for record in store.studies():
        contents.append(pb.Content.FromString(record.initial or b""))
        for closed in store.rounds(record.study, last=_models_needed(record)):
            state = pb.RoundState.FromString(closed.state)
            contents += [state.parameters, state.memory]
        contents += CandidateBook(store.connection).contents(record.plan_hash)
        for kind in (*UPDATES, "evaluate"):
            kept = store.answers(record.study, kind)
            contents += [pb.Answer.FromString(data).content for *_, data in kept]
    return {ref.sha256 for content in contents if (ref := ref_of(content)) is not None}


def _models_needed(record: StudyRecord) -> int:
    try:
        return plan_of(record).training.average_last
    except FedtwinError:  # an unreadable plan: nothing of its study is removed
        return 0


def plan_of(record: StudyRecord) -> StudyPlan:
    """The plan inside a study's envelope; it was verified when the study was added."""
    return plan_from_bytes(envelope_from_bytes(record.envelope).body)

"""A site gives its shares only for the set that enough sites have signed, and looks for itself.

The coordinator's own check of the signatures counts for nothing here: it is the one that lies.
"""

from typing import Any

import pytest

from fedtwin_protocol import secure_messages as sm
from fedtwin_protocol import sum_steps as steps
from fedtwin_protocol.errors import SignatureError
from fedtwin_protocol.v1 import exchange_pb2 as pb

from .test_dishonest import changed, faults


@pytest.mark.parametrize("forged", ["of the set that the others confirmed", "of nothing"])
def test_shares_are_not_given_on_signatures_of_another_set(sites: Any, forged: str) -> None:
    """One site is told that another vanished, and shown what the rest have signed: not its set.

    Its shares of that site's mask key, beside those of the seed that the rest give, would unmask
    that site's part.
    """
    group = sites(7)
    everybody = sorted(group.keys)
    victim, lost = everybody[0], everybody[6]
    held: dict[str, bytes] = {}

    def lie(site: str, step: str, task: pb.Task) -> pb.Task:
        if site != victim:
            return task
        if step == steps.CONFIRM:
            return changed(task, survivors=everybody[:6])
        if step == steps.UNMASK:
            signers = everybody[1:6]
            signatures = [held[name] if "set" in forged else bytes(64) for name in signers]
            return changed(task, signers=signers, signatures=signatures)
        return task

    def keep(site: str, step: str, found: pb.Content) -> pb.Content:
        if step == steps.CONFIRM:
            held[site] = sm.raw(sm.fields_of(found), "signature", 64)
        return found

    group.change, group.twist = lie, keep
    summed = group.run()  # the six others agree, which is enough
    assert lost in summed.sites
    assert isinstance(faults(group, steps.UNMASK)[victim], SignatureError)
    assert (steps.UNMASK, victim) not in group.seen

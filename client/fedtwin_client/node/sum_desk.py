"""Which secure sum a task belongs to, and what is answered to its steps.

The sum's name and terms are computed from the accepted plan; the task brings only who is there.
"""

from datetime import datetime
from typing import Any

from fedtwin_client.node.secure_sums import SecureSums, Sum
from fedtwin_protocol import secure_messages as sm
from fedtwin_protocol import sum_steps as steps
from fedtwin_protocol.errors import WireError
from fedtwin_protocol.secure_terms import sum_label, sum_terms
from fedtwin_protocol.study import StudyPlan
from fedtwin_protocol.v1 import exchange_pb2 as pb


class SumDesk:
    """Answers the steps of secure sums.

    Args:
        sums: this site's part in them.
    """

    def __init__(self, sums: SecureSums) -> None:
        self._sums = sums

    def step(self, task: pb.Task, plan: StudyPlan, now: datetime) -> pb.Content:
        """The answer to a step in which no patient's data are touched.

        Raises:
            WireError, PolicyError, SignatureError: what was sent does not fit the plan, the
                signatures, or what was sent before.
        """
        _, step = steps.step_of(task.kind)
        which = sum_of(task, plan, self._sums.site)
        if step == steps.KEYS:
            return sm.content_of(self._sums.keys(which, now))
        fields = sm.fields_of(task.content)
        answers = {
            steps.SHARES: self._sums.shares,
            steps.CONFIRM: self._sums.confirm,
            steps.UNMASK: self._sums.unmask,
        }
        if step not in answers:
            raise WireError(f"a secure sum has no step '{step[:20]}' of this kind")
        return sm.content_of(answers[step](which, fields, now))

    def mask_order(self, task: pb.Task, plan: StudyPlan, now: datetime) -> dict[str, Any]:
        """What the worker must hide its part under, as plain JSON values."""
        which = sum_of(task, plan, self._sums.site)
        keys = self._sums.mask_keys(which, sm.fields_of(task.content), task.task_id, now)
        return {
            "sites": list(which.terms.sites),
            "added": [keys.own.hex(), *(key.hex() for key in keys.added)],
            "subtracted": [key.hex() for key in keys.subtracted],
        }


def sum_of(task: pb.Task, plan: StudyPlan, site: str) -> Sum:
    """The sum that a task belongs to, as the plan has it for a site."""
    purpose, _ = steps.step_of(task.kind)
    terms = sum_terms(plan, purpose, task.round, site)
    label = sum_label(plan, purpose, task.round, terms.sites)
    return Sum(label=label, plan_hash=plan.hash, terms=terms)

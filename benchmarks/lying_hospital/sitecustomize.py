"""A hospital that has changed its node's software so that it lies, whatever it is asked to learn.

Python runs this file at its start where this folder is on the path. In the training worker it puts
a lie in the place of the honest update; which one, the study's name says: `x100-…`: -100 times the
update; `hard-…`: against the update, as long as the coordinator's bound lets through; `flip-…`: the
update of patients whose outcomes are turned around; any other name: the truth.
"""

import sys

if "fedtwin_client.training.worker" in sys.orig_argv:
    import numpy as np

    from fedtwin_client.training import built_in
    from fedtwin_protocol.payload import Payload
    from fedtwin_server.bounds import site_noise_sd, usual_norm

    honest_init, honest_answer = built_in.BuiltIn.__init__, built_in.BuiltIn.answer

    def lying_init(self, plan, rows, noise, *more, **options):
        """Learn from labels that are turned around."""
        if plan.study.startswith("flip-"):
            rows = type(rows)(
                **{
                    name: 1 - value if name == "labels" else value
                    for name in rows.__dataclass_fields__
                    for value in [getattr(rows, name)]
                }
            )
        honest_init(self, plan, rows, noise, *more, **options)

    def lying_answer(self, task):
        """Answer with what harms."""
        found = honest_answer(self, task)
        plan = self._plan
        if task.kind != "train" or not plan.study.startswith(("x100-", "hard-")):
            return found
        update = found.arrays["arrays"]["gradient_sum"]
        times = -100.0
        if plan.study.startswith("hard-"):
            clip = plan.privacy.clipping_norm
            longest = usual_norm(update.size, task.reported_count, clip, site_noise_sd(plan))
            times = -longest / float(np.linalg.norm(update))
        return Payload(arrays={"arrays": {"gradient_sum": times * update}}, metrics=found.metrics)

    built_in.BuiltIn.__init__, built_in.BuiltIn.answer = lying_init, lying_answer

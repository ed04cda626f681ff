"""What a hospital is told of noise: only what the node itself can vouch for."""

import pytest

from fedtwin.demo.synthetic import PLAN
from fedtwin_client.node.plain_words import as_text, describe
from fedtwin_client.node.task_desk import in_words
from fedtwin_protocol.study import plan_from_yaml
from fedtwin_protocol.v1 import exchange_pb2 as pb


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ("logistic_regression", "gradient_sum, 14 numbers, noised"),
        ("our_family", "gradient_sum, 14 numbers, as the installed app made it"),
    ],
)
def test_noise_is_claimed_only_where_the_node_adds_it(family: str, said: str) -> None:
    plan = plan_from_yaml(PLAN)
    model = plan.model.model_copy(update={"family": family})
    privacy = plan.privacy.model_copy(update={"mode": "local"})
    plan = plan.model_copy(update={"model": model, "privacy": privacy})
    head = pb.ArrayHead(name="gradient_sum", dtype="float64", shape=[14])
    record = pb.Record(name="arrays", kind=pb.Record.ARRAYS, arrays=[head])
    found = in_words(pb.Answer(content=pb.Content(records=[record], inline=b"")), plan)
    assert found.startswith(said)
    assert ("not checked" in found) == (family == "our_family")
    told = "the node does not check it" in " ".join(as_text(describe(plan)).split())
    assert told == (family == "our_family")

"""Events under the pseudonyms of other patients."""

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc


def moved(events: pa.Table, into: Mapping[int, int]) -> pa.Table:
    """The events, those of some pseudonyms with the ones that now stand for them."""
    if not into:
        return events
    places = pc.index_in(events["subject_id"], pa.array(list(into), type=pa.int64()))
    wholes = pa.array(list(into.values()), type=pa.int64()).take(places.combine_chunks())
    at = events.schema.get_field_index("subject_id")
    subjects = pc.coalesce(wholes, events["subject_id"].combine_chunks())
    return events.set_column(at, events.schema.field(at), subjects)


def given_away(events: pa.Table, moves: pa.Table) -> pa.Table:
    """The events under the pseudonyms that `moves` gives them.

    Args:
        events: with the columns of the store's schema.
        moves: columns `moving`, `moving_to` and `moving_source`, as `commit.move` has them.
    """
    one_by_one = moves["moving_source"].is_valid()
    whole = moves.filter(pc.invert(one_by_one))
    events = moved(
        events, dict(zip(whole["moving"].to_pylist(), whole["moving_to"].to_pylist(), strict=True))
    )
    single = moves.filter(one_by_one)
    for subject, target in sorted(
        set(zip(single["moving"].to_pylist(), single["moving_to"].to_pylist(), strict=True))
    ):
        chosen = single.filter(pc.equal(single["moving"], subject))["moving_source"]
        leaves = pc.and_(
            pc.equal(events["subject_id"], subject),
            pc.is_in(events["source"], chosen.combine_chunks()),
        )
        at = events.schema.get_field_index("subject_id")
        subjects = pc.if_else(leaves, pa.scalar(target, pa.int64()), events["subject_id"])
        events = events.set_column(at, events.schema.field(at), subjects)
    return events

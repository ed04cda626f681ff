"""Arrow's readers over Python's streams, let go of safely when they are not read to their end.

Such a reader reads ahead in a thread of its own. If the program ends while that thread is in the
stream's `read`, the interpreter is gone under it, and the process aborts ("terminate called") or
waits for ever. So nothing is left here before the thread has left the stream.
"""

import time
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Final, TypeAlias

import pyarrow as pa

Batches: TypeAlias = Generator[pa.RecordBatch, None, None]
_LEAVING_S: Final = 0.02


def batches_of(opening: Callable[[], pa.RecordBatchReader], stop: Callable[[], None]) -> Batches:
    """Every batch of a reader; when this is closed, nothing reads in its stream any more.

    Args:
        opening: makes the reader.
        stop: waits until nobody reads in the stream, which is at its end from then on.
    """
    ended = False
    try:
        reader = opening()
        while (batch := _next(reader)) is not None:
            yield batch
        ended = True
    except GeneratorExit:
        stop()
        # What was read ahead; its end comes when the thread has found that of the stream.
        with suppress(Exception):
            while _next(reader) is not None:
                pass
            ended = True
        raise
    finally:
        if not ended:
            stop()
            # After a fault the reader says nothing of its thread, which only has to return now.
            time.sleep(_LEAVING_S)


def _next(reader: pa.RecordBatchReader) -> pa.RecordBatch | None:
    try:
        return reader.read_next_batch()
    except StopIteration:
        return None

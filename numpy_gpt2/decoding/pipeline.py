"""Reads the pieces of a text on all cores: each piece follows the one before it through the blocks.

In each block, a piece needs the keys and values that the pieces before it have there, and nothing else of them. So
while one piece is in the third block, the next may be in the second:

    piece 1    block 1    block 2    block 3    ...
    piece 2               block 1    block 2    block 3    ...
    piece 3                          block 1    block 2    block 3    ...

Each worker is a thread of Python that takes a piece through all blocks, with matrix products on one thread. NumPy lets
other threads run while it computes. So all cores are busy between the products, too, where NumPy uses only one.

A pass may do something else than store keys and values once in each block, in order, if somebody has changed a layer.
That is noticed, and the pieces can be read one after another.

Source: Li et al. 2021, "TeraPipe: Token-Level Pipeline Parallelism for Training Large-Scale Language Models".
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TypeVar

from ..cache import LayerPast, Past
from ..machine.threads import on_one
from ..params import Array

T = TypeVar("T")


class StoppedError(BaseException):  # not an Exception, which a changed layer may catch
    """The pieces before this one will not go on."""


class OrderError(BaseException):
    """A pass stores keys and values in other blocks than each one once, in order."""


class PiecePast(Past):
    """A past as one piece of the text sees it: in each block, the piece waits for the keys and values before its own.

    Args:
        past: the past of the whole text; the keys and values are shared.
        start: how many tokens of the text the pieces before have.
        before: has True for each block in which the piece before has stored its own, and False if it has failed.
        after: the same for the piece after.
        stopped: set when no piece is to go on.

    Attributes:
        n_stored: in how many blocks this piece has stored its keys and values.
    """

    def __init__(
        self, past: Past, start: int, before: SimpleQueue[bool], after: SimpleQueue[bool], stopped: threading.Event
    ) -> None:
        self.params, self.k, self.v, self.lengths = past.params, past.k, past.v, past.lengths + start
        self.before, self.after, self.stopped = before, after, stopped
        self.n_stored = 0

    def layers(self, n_seq: int) -> list[LayerPast]:
        """The part of each block."""
        parts = [PieceLayerPast(*layer_past) for layer_past in super().layers(n_seq)]
        for number, part in enumerate(parts):
            part.piece, part.number = self, number
        return [*parts]

    def check_order(self, n_blocks: int) -> None:
        """Checks that the piece has stored its keys and values in the first n_blocks blocks.

        Raises:
            OrderError: it has not.
        """
        if self.n_stored != n_blocks:
            raise OrderError


class PieceLayerPast(LayerPast):
    """The part of one block, as one piece of the text sees it."""

    piece: PiecePast
    number: int  # of the block

    def append(self, k: Array, v: Array) -> tuple[Array, Array]:
        """As for `LayerPast`, once the piece before has done the same.

        Raises:
            StoppedError: the pieces before will not.
            OrderError: this is not the next block.
        """
        self.piece.check_order(self.number)
        if not self.piece.before.get() or self.piece.stopped.is_set():
            raise StoppedError
        appended = super().append(k, v)
        self.piece.n_stored += 1
        self.piece.after.put(True)
        return appended


def run_in_pipeline(run: Callable[[int, Past], T], past: Past, starts: Sequence[int], n_workers: int) -> list[T]:
    """Calls `run(start, past)` for each piece of a text, in n_workers threads, which end before this returns.

    Args:
        run: takes a piece through all blocks, given where it starts, and the past as it sees it.
        past: the past that the text continues. Its lengths stay as they are.
        starts: where the pieces start, in order.
        n_workers: the number of threads.

    Returns:
        The results, in order.

    Raises:
        OrderError: the pieces cannot be run like this.
        Whatever `run` raises first, in the order of the pieces.
    """
    n_layer = len(past.params.h)
    queues: list[SimpleQueue[bool]] = [SimpleQueue() for _ in (*starts, None)]
    for _ in range(n_layer):
        queues[0].put(True)  # the first piece waits for nothing
    stopped = threading.Event()
    results: dict[int, T] = {}
    errors: dict[int, BaseException] = {}
    ended: SimpleQueue[None] = SimpleQueue()  # C code: whatever Ctrl-C interrupts, the workers can use it

    def run_piece(i: int) -> None:
        piece = PiecePast(past, starts[i], queues[i], queues[i + 1], stopped)
        try:
            if stopped.is_set():
                raise StoppedError
            results[i] = run(starts[i], piece)
            piece.check_order(n_layer)
        except BaseException as error:
            errors[i] = error
            queues[i + 1].put(False)

    def work(worker: int) -> None:
        for i in range(worker, len(starts), n_workers):
            run_piece(i)
        ended.put(None)

    workers = [
        threading.Thread(target=contextvars.copy_context().run, args=(work, worker)) for worker in range(n_workers)
    ]
    with on_one():
        try:
            for worker in workers:
                worker.start()
            for _ in workers:
                ended.get()
        except BaseException:
            stopped.set()
            for queue in queues:
                queue.put(False)
            raise
        finally:
            for worker in workers:
                if worker.ident:  # has started
                    worker.join()
    if errors:
        raise errors[min(errors)]
    return [results[i] for i in range(len(starts))]

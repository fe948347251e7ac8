"""Reads the pieces of a text on all cores: each piece follows the one before it through the blocks.

In each block, a piece needs the keys and values that the pieces before it have there, and nothing else of them. So
while one piece is in the third block, the next may be in the second:

    piece 1    block 1    block 2    block 3    ...
    piece 2               block 1    block 2    block 3    ...
    piece 3                          block 1    block 2    block 3    ...

Each worker is a thread of Python that takes a piece through all blocks, with matrix products on one thread. NumPy lets
other threads run while it computes. So all cores are busy between the products, too, where NumPy uses only one.

Source: Li et al. 2021, "TeraPipe: Token-Level Pipeline Parallelism for Training Large-Scale Language Models".
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

from ..cache import LayerPast, Past
from ..machine.threads import on_one
from ..params import Array

T = TypeVar("T")


class StoppedError(Exception):
    """The pieces before this one will not go on."""


class PiecePast(Past):
    """A past as one piece of the text sees it: in each block, the piece waits for the keys and values before its own.

    Args:
        past: the past of the whole text; the keys and values are shared.
        start: how many tokens of the text the pieces before have.
        before: has True for each block in which the piece before has stored its own, and False if it has failed.
        after: the same for the piece after.
        stopped: set when no piece is to go on.
    """

    def __init__(
        self, past: Past, start: int, before: SimpleQueue[bool], after: SimpleQueue[bool], stopped: threading.Event
    ) -> None:
        self.params, self.k, self.v, self.lengths = past.params, past.k, past.v, past.lengths + start
        self.before, self.after, self.stopped = before, after, stopped

    def layers(self, n_seq: int) -> list[LayerPast]:
        """The part of each block."""
        parts = [PieceLayerPast(*layer_past) for layer_past in super().layers(n_seq)]
        for part in parts:
            part.piece = self
        return [*parts]


class PieceLayerPast(LayerPast):
    """The part of one block, as one piece of the text sees it."""

    piece: PiecePast

    def append(self, k: Array, v: Array) -> tuple[Array, Array]:
        """As for `LayerPast`, once the piece before has done the same.

        Raises:
            StoppedError: the pieces before will not.
        """
        if not self.piece.before.get() or self.piece.stopped.is_set():
            raise StoppedError
        appended = super().append(k, v)
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
        Whatever `run` raises first, in the order of the pieces.
    """
    queues: list[SimpleQueue[bool]] = [SimpleQueue() for _ in (*starts, None)]
    stopped = threading.Event()

    def let_all_pass(i: int) -> None:
        """Piece i need not wait in any block."""
        for _ in past.params.h:
            queues[i].put(True)

    def run_piece(i: int) -> T:
        try:
            result = run(starts[i], PiecePast(past, starts[i], queues[i], queues[i + 1], stopped))
        except BaseException:
            queues[i + 1].put(False)
            raise
        let_all_pass(i + 1)
        return result

    let_all_pass(0)
    with on_one(), ThreadPoolExecutor(n_workers) as executor:
        try:
            pieces = [executor.submit(contextvars.copy_context().run, run_piece, i) for i in range(len(starts))]
            return [piece.result() for piece in pieces]
        except BaseException:
            stopped.set()
            executor.shutdown(wait=False, cancel_futures=True)
            raise

"""How much memory training takes, before the first step."""

from __future__ import annotations

from ..params import HParams, count_params
from .gradients import POSITIONS_AT_ONCE
from .loop import Options, window

# What a position keeps in a block, in numbers for each of n_embd: x, and the fields of `forward.Kept`.
KEPT = 10
# The most numbers that a block has at once besides, for each of n_embd and for each attention weight: in the backward
# pass, and in the forward pass of an evaluation.
IN_BLOCK, IN_ATTENTION = 36, 5
IN_FORWARD, IN_FORWARD_ATTENTION = 16, 3
# The most arrays of logits of `POSITIONS_AT_ONCE` positions at once, in `loss_backward`.
IN_LOSS = 4
# The most arrays of the size of a matrix at once in `Muon.step_of_matrix`.
IN_UPDATE = 5
# What the process takes when it evaluates and saves for the first time: modules, and buffers of the BLAS.
LATER = 12 * 2**20


def estimate(
    hparams: HParams, options: Options, n_threads: int, before: int, n_held_out: int, itemsize: int = 4
) -> int:
    """How many bytes the process takes at most while it trains, within a tenth.

    Args:
        hparams, options, n_threads: as for `Training`.
        before: how many bytes the process takes without the model.
        n_held_out: how many tokens the model is evaluated with.
        itemsize: the bytes of a number.
    """
    n_vocab, n_ctx, n_embd, n_head, n_layer = hparams
    n_blocks, n_seq = options.train_last or n_layer, window(options, hparams)
    in_blocks = n_blocks * (count_params(hparams) - count_params(hparams._replace(n_layer=n_layer - 1)))
    matrices = n_blocks * 12 * n_embd**2  # of all these blocks
    if options.lora_rank:
        learned = n_blocks * 16 * n_embd * options.lora_rank  # (1 + 3) + (1 + 1) + (1 + 4) + (4 + 1) widths
        tree, frozen, embeddings = in_blocks, matrices, 0
    else:
        frozen, embeddings = 0, 0 if options.train_last else count_params(hparams._replace(n_layer=0))
        learned = tree = in_blocks + embeddings
    kept = n_seq * n_embd * (n_blocks + KEPT if options.sparing else KEPT * n_blocks)
    in_loss = IN_LOSS * POSITIONS_AT_ONCE * n_vocab
    logits = n_vocab * n_seq + in_loss
    in_block = n_seq * (IN_BLOCK * n_embd + IN_ATTENTION * n_head * n_seq)
    first_text = max(kept + logits + embeddings, tree + in_block)
    later_texts = tree + kept + max(logits, in_block)
    n_workers = min(n_threads, options.batch_size)
    n_read = min(n_ctx, n_held_out)
    evaluation = n_read * (IN_FORWARD * n_embd + IN_FORWARD_ATTENTION * n_head * n_read) + in_loss
    of_worker = max(first_text, evaluation, later_texts if options.batch_size > n_workers else 0)
    means, update = 2 * learned, 0
    if options.optimizer == "muon":  # it has one mean of a matrix, and some copies of those that are being updated
        means -= learned if options.lora_rank else matrices
        update = tree + min(n_threads, 6 * n_blocks) * IN_UPDATE * 4 * n_embd**2
    return before + LATER + itemsize * (count_params(hparams) + means + frozen + max(n_workers * of_worker, update))

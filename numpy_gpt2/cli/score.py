"""`numpy-gpt2 score`: how well a model predicts a text."""

from __future__ import annotations

import argparse
import math
import sys
from array import array
from collections.abc import Sequence

import numpy as np

from ..decoding.prompts import require
from ..evaluation.scoring import Scores, bits_per_byte, perplexity
from ..tokenizer import Tokenizer
from .arguments import add_model_options
from .loading import announce, load_model
from .process import argument_text, is_terminal, progress_bar, read_input, show_object

HELP = "how well a model predicts a text: perplexity, and the probability of each token"
DESCRIPTION = """\
Score a text with GPT-2: how likely is it, for the model?

  cross-entropy    how surprising a token is on average, in nats (natural logarithms)
  perplexity       among how many equally likely tokens that would be a choice: exp(cross-entropy)
  bits per byte    how long the text would be in the code that is best for the model;
                   comparable between models with different vocabularies

A short text is shown token by token, each with its probability and its rank: 1 for the token that the model
considered likeliest there. The first token is not scored, since there is nothing before it.
"""
EXAMPLES = """\
  numpy-gpt2 score story.txt
  numpy-gpt2 score --text "The princess kissed the frog."
  cat story.txt | numpy-gpt2 score - --json
"""

SHORT = 100  # the longest text that is shown token by token, in tokens


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        help="the text, in UTF-8; every character counts, also the line end that `echo` adds; - for standard input, "
        "which is also read if there is no FILE and it is not a terminal",
    )
    source.add_argument("--text", metavar="TEXT", help="the text itself")
    parser.add_argument(
        "--stride",
        metavar="N",
        type=int,
        help="a text longer than the model's context is read in windows that begin N tokens after one another: a "
        "smaller N lets the model see more of what came before, and takes longer (default: half the context)",
    )
    parser.add_argument("--tokens", action="store_true", help="show each token, however long the text")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the figures as a JSON object; with --tokens, after an object per line for each token",
    )
    add_model_options(parser)


def run(args: argparse.Namespace) -> None:
    """Prints how well the model predicts the text: token by token as they are scored, then the figures."""
    text, source = text_of(args)
    model = load_model(args)
    tokenizer = require(model.tokenizer)
    ids, n_bytes = encode(text, tokenizer)
    del text  # a long one would stay in memory while it is scored
    n = len(ids) - 1  # the first token is not scored
    if n < 1:
        raise ValueError(f"{source} is too short: the first token is not scored, so there must be at least two")
    pieces = model.score(ids, args.stride)
    announce(model, args)
    with_tokens = args.tokens or (n < SHORT and not args.json)
    if with_tokens and args.json:
        first = {"id": ids[0], "token": tokenizer.decode(ids[:1]), "log_probability": None, "rank": None}
        show_object(first)
    elif with_tokens:
        print("probability   rank  token")
        print(f"          -      -  {tokenizer.decode(ids[:1])!r}")
    log_probability, n_scored = 0.0, 0
    with progress_bar(n, "token") as progress:
        for piece in pieces:
            log_probability += float(np.sum(piece.log_probabilities, dtype=np.float64))
            if with_tokens:
                progress.clear()
                scored = ids[1 + n_scored : 1 + n_scored + piece.ranks.size]
                show_tokens(scored, piece, tokenizer, args.json)
            n_scored += piece.ranks.size
            progress.update(piece.ranks.size)
    n_bytes -= len(tokenizer.decode_bytes(ids[:1]))
    show_figures(n, log_probability, n_bytes, with_tokens, args.json)


def text_of(args: argparse.Namespace) -> tuple[str, str]:
    """The text to score, and what to call it.

    Raises:
        OSError: the file cannot be read.
        ValueError: there is no text, or the file is not text.
    """
    if args.text is not None:
        return argument_text(args.text), "the text"
    if args.file not in (None, "-"):
        try:
            return read_input(args.file, exact=True), args.file
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}; --text scores a text itself") from None
    if args.file is None and is_terminal(sys.stdin):
        args.parser.error("name a file, or give the text itself with --text")
    return read_input("-", exact=True), "standard input"


def encode(text: str, tokenizer: Tokenizer, allow_special: bool = False) -> tuple[array[int], int]:
    """The token ids of a text, in four bytes each, and its length in bytes; allow_special as for `Tokenizer.encode`.

    Raises:
        ValueError: the text cannot be encoded.
    """
    ids, n_bytes = array("i"), 0
    with progress_bar(len(text), "character") as progress:
        progress.set_description("encoding", refresh=False)
        for piece, part in tokenizer.encode_pieces(text, allow_special):
            ids.extend(part)
            n_bytes += len(piece.encode())
            progress.update(len(piece))
    return ids, n_bytes


def show_tokens(ids: Sequence[int], scores: Scores, tokenizer: Tokenizer, as_json: bool) -> None:
    """Prints a line for each token that was scored: its probability, its rank, and the token.

    Shapes: n_seq ids, scores `[1, n_seq]`.
    """
    for id, log_probability, rank in zip(ids, scores.log_probabilities[0], scores.ranks[0], strict=True):
        token = tokenizer.decode([id])
        if as_json:
            show_object({"id": id, "token": token, "log_probability": log_probability, "rank": rank})
        else:
            print(f"{math.exp(log_probability):11.6f} {rank:6d}  {token!r}")


def show_figures(n: int, log_probability: float, n_bytes: int, with_tokens: bool, as_json: bool) -> None:
    """Prints the figures of a text.

    Args:
        n: how many tokens were scored.
        log_probability: the sum of their log-probabilities.
        n_bytes: their length in bytes.
        with_tokens: whether the tokens are printed above.
        as_json: whether to print an object.
    """
    loss = -log_probability / n
    bits = bits_per_byte(log_probability, n_bytes)
    if as_json:
        show_object({"tokens": n, "cross_entropy": loss, "perplexity": perplexity(loss), "bits_per_byte": bits})
        return
    if with_tokens:
        print()
    print(f"tokens scored  {n}")
    print(f"cross-entropy  {loss:.4f} nats per token")
    print(f"perplexity     {perplexity(loss):.4f}")
    print(f"bits per byte  {bits:.4f}")

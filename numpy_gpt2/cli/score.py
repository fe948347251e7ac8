"""`numpy-gpt2 score`: how well a model predicts a text."""

from __future__ import annotations

import argparse
import math

import numpy as np

from ..decoding.prompts import require
from ..evaluation.scoring import Scores, bits_per_byte, cross_entropy, join, perplexity
from ..tokenizer import Tokenizer
from .arguments import add_model_options
from .loading import announce, load_model
from .process import progress_bar, read_input

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
  echo "The princess kissed the frog." | numpy-gpt2 score -
"""

SHORT = 100  # the longest text that is shown token by token, in tokens


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("file", metavar="FILE", help="the text, in UTF-8; - for standard input")
    parser.add_argument(
        "--stride",
        metavar="N",
        type=int,
        help="a text longer than the model's context is read in windows that begin N tokens after one another: a "
        "smaller N lets the model see more of what came before, and takes longer (default: half the context)",
    )
    parser.add_argument("--tokens", action="store_true", help="show each token, however long the text")
    add_model_options(parser)


def run(args: argparse.Namespace) -> None:
    """Prints how well the model predicts the file."""
    text = read_input(args.file)
    model = load_model(args)
    tokenizer = require(model.tokenizer)
    ids = tokenizer.encode(text)
    if len(ids) < 2:
        raise ValueError(f"{args.file} is too short: the first token is not scored, so there must be at least two")
    scores_of_pieces = model.score(ids, args.stride)
    announce(model, args)
    pieces = []
    with progress_bar(len(ids) - 1, "token") as progress:
        for piece in scores_of_pieces:
            pieces.append(piece)
            progress.update(piece.ranks.size)
    scores = Scores(*(values[0] for values in join(pieces)))
    if args.tokens or len(ids) <= SHORT:
        print_tokens(ids, scores, tokenizer)
    loss = cross_entropy(scores.log_probabilities, np.array(ids[1:]))
    bits = bits_per_byte(scores.log_probabilities, len(tokenizer.decode_bytes(ids[1:])))
    print(f"tokens scored  {len(ids) - 1}")
    print(f"cross-entropy  {loss:.4f} nats per token")
    print(f"perplexity     {perplexity(loss):.4f}")
    print(f"bits per byte  {bits:.4f}")


def print_tokens(ids: list[int], scores: Scores, tokenizer: Tokenizer) -> None:
    """Prints a line for each token: its probability, its rank, and the token."""
    print("probability   rank  token")
    print(f"          -      -  {tokenizer.decode(ids[:1])!r}")
    for id, log_probability, rank in zip(ids[1:], *scores, strict=True):
        print(f"{math.exp(log_probability):11.6f} {rank:6d}  {tokenizer.decode([id])!r}")
    print()

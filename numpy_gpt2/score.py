"""How well a model predicts a file: `python -m numpy_gpt2.score FILE`."""

from __future__ import annotations

from . import interrupts  # isort: split

import argparse
import math
import sys
from typing import TYPE_CHECKING

from .commands import ArgumentParser, log_to_standard_error, progress_bar, read_input, run
from .model_options import add_model_options, announce, load_model, set_threads

if TYPE_CHECKING:
    from .scoring import Scores
    from .tokenizer import Tokenizer

DESCRIPTION = """\
Score a text with GPT-2: how likely is it, for the model?

  cross-entropy    how surprising a token is on average, in nats (natural logarithms)
  perplexity       among how many equally likely tokens that would be the choice: exp(cross-entropy)
  bits per byte    how long the text would be, written with the best code for the model;
                   comparable between models with different vocabularies

A short text is shown token by token, each with its probability and its rank: 1 for the token that the model
thought likeliest there. The first token is not scored, as there is nothing before it.

examples:
  python -m numpy_gpt2.score story.txt
  echo "The princess kissed the frog." | python -m numpy_gpt2.score -
"""
SHORT = 100  # tokens: so much is shown one by one


def parser() -> ArgumentParser:
    """The options."""
    parser = ArgumentParser(
        prog="python -m numpy_gpt2.score",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="the text, in UTF-8; - for standard input")
    parser.add_argument(
        "--stride",
        metavar="N",
        type=int,
        help="a text longer than the model's context is read in windows that begin N tokens after one another: fewer "
        "let the model see more of what came before, and take longer (default: half the context)",
    )
    parser.add_argument("--tokens", action="store_true", help="show each token, however long the text")
    add_model_options(parser)
    return parser


def score_file(args: argparse.Namespace) -> None:
    """Prints what the model thinks of the file."""
    set_threads(args.threads)  # before anything imports NumPy
    import numpy as np

    from .prompts import require
    from .scoring import Scores, bits_per_byte, cross_entropy, join, perplexity

    interrupts.raise_from_now_on()
    text = read_input(args.file)
    model = load_model(args)
    tokenizer = require(model.tokenizer)
    ids = tokenizer.encode(text)
    if len(ids) < 2:
        raise ValueError(f"{args.file} is too short: the first token is not scored, so there must be two at least")
    to_come = model.score(ids, args.stride)
    announce(model, args)
    pieces = []
    with progress_bar(len(ids) - 1, "token") as progress:
        for piece in to_come:
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
    """Prints a line for each token: how likely the model thought it, and how many tokens it thought likelier."""
    print("probability   rank  token")
    print(f"          -      -  {tokenizer.decode(ids[:1])!r}")
    for id, log_probability, rank in zip(ids[1:], *scores, strict=True):
        print(f"{math.exp(log_probability):11.6f} {rank:6d}  {tokenizer.decode([id])!r}")
    print()


def main() -> int:
    """The command line `python -m numpy_gpt2.score`."""
    args = parser().parse_args()
    log_to_standard_error()
    return run(lambda: score_file(args))


if __name__ == "__main__":
    sys.exit(main())

"""`numpy-gpt2 vocabulary`: learns a vocabulary from a text."""

from __future__ import annotations

import argparse
import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from .. import checks
from ..machine.files import replace_files, settle
from ..text.pieces import pieces
from ..text.vocabulary import LAYOUTS, OPENAI, TWO_FILES
from ..tokenizer import END_OF_TEXT, Tokenizer
from ..training import vocabulary
from ..weights.folder import holds_params
from .arguments import add_message_options
from .folders import output_folder, reserved
from .process import check_standard_input, progress_bar, read_input, show

log = logging.getLogger("numpy_gpt2")

HELP = "learn a vocabulary from a text"
DESCRIPTION = """\
Learn the vocabulary for a new model from a text, as GPT-2's was learned: the most frequent pair of neighbouring tokens
becomes a token of its own, again and again.

The folder is what `numpy-gpt2 train --vocabulary` takes. It has the vocabulary in both layouts: encoder.json and
vocab.bpe, as OpenAI's tokenizer and tiktoken read it, and the files that Hugging Face's library opens.
"""
EXAMPLES = """\
  numpy-gpt2 vocabulary stories.txt --size 4096 --output my-vocabulary
  numpy-gpt2 train stories.txt --vocabulary my-vocabulary --n-layer 4 --n-head 4 --n-embd 128 --output new-model
"""

SIZE = 4096
LEAST = vocabulary.N_BYTES + 1  # the bytes, and `<|endoftext|>`


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help="text in UTF-8; - for standard input. <|endoftext|> in it separates documents, and no token crosses it",
    )
    parser.add_argument("--output", "-o", metavar="DIR", required=True, help="the folder to write the vocabulary to")
    parser.add_argument(
        "--size",
        metavar="N",
        type=int,
        default=SIZE,
        help="how many tokens there are to be, with the 256 bytes and <|endoftext|> (default: %(default)s)",
    )
    add_message_options(parser)


def run(args: argparse.Namespace) -> None:
    """Learns a vocabulary, writes it, and says how long its tokens are."""
    checks.check_whole_number("--size", args.size, at_least=LEAST)
    check_standard_input(args.files)
    folder = output_folder(args.output)
    with reserved(folder, ".lock", "writing"):
        settle(folder, ())
        check_free(folder)
        counts = vocabulary.count_words(read_pieces(args.files))
        if not counts:
            raise ValueError(f"there is nothing to learn from: no text has anything but {END_OF_TEXT}")
        log.info("%s words, %s of them different", f"{counts.total():,}", f"{len(counts):,}")
        tokenizer = learned_tokenizer(counts, args.size)
        replace_files(folder, partial(write, tokenizer), ())
    ratio = bytes_per_token(counts, tokenizer)
    show(f"{args.size} tokens are in {folder}; one stands for {ratio:.2f} bytes of this text, on average")


def check_free(folder: Path) -> None:
    """Checks that a vocabulary can be written to a folder without a change to what it holds.

    Raises:
        ValueError: it holds a vocabulary, or a file of one, or a model.
    """
    files = [file for layout in LAYOUTS for file in (folder / name for name in layout) if file.exists()]
    if files or holds_params(folder):
        what = f"a vocabulary ({files[0].name})" if files else "a model"
        raise ValueError(f"{folder} holds {what} already: name another folder")


def read_pieces(files: Sequence[str]) -> Iterator[str]:
    """The texts in files, piece by piece, with a progress bar.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is empty, or not UTF-8.
    """
    for file in files:
        text = read_input(file)
        if not text:
            raise ValueError(f"{'standard input' if file == '-' else file} is empty")
        with progress_bar(len(text), "character") as progress:
            for piece in pieces(text):
                yield piece
                progress.update(len(piece))


def learned_tokenizer(counts: Counter[str], size: int) -> Tokenizer:
    """The tokenizer with a vocabulary of words, of the size that was asked for.

    Raises:
        ValueError: the words are too few for it, or not UTF-8.
    """
    with progress_bar(size - LEAST, "token") as progress:
        merges = []
        for pair in vocabulary.learn(counts, size - 1):
            merges.append(pair)
            progress.update()
    learned = vocabulary.from_merges(merges)
    if (n := len(learned.encoder)) < size:
        raise ValueError(f"with {n} tokens, each word of the text is one: ask for --size {n}, or give more text")
    return Tokenizer(learned.encoder, learned.merges)


def write(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes the vocabulary in both layouts: OpenAI's, and the one that Hugging Face's library opens.

    Raises:
        OSError: a file cannot be written.
    """
    tokenizer.save(folder)
    for here, there in zip(TWO_FILES, OPENAI, strict=True):
        shutil.copyfile(folder / here, folder / there)


def bytes_per_token(counts: Mapping[str, int], tokenizer: Tokenizer) -> float:
    """How many bytes of a text one token stands for, on average.

    Args:
        counts: how often each word is in the text.
        tokenizer: the tokenizer.
    """
    n_bytes = sum(len(word.encode()) * n for word, n in counts.items())
    return n_bytes / sum(len(tokenizer.encode_word(word)) * n for word, n in counts.items())

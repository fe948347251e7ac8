"""Where prompts come from: the command line, a file, standard input, or a conversation."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import NamedTuple, TextIO

from .process import given_text, is_terminal, read_input


class NamedPrompt(NamedTuple):
    """A prompt, and which of several it is."""

    text: str
    where: str = ""


def read_prompts(args: argparse.Namespace) -> list[NamedPrompt]:
    """All prompts, except those of a conversation.

    Raises:
        OSError: the file cannot be read.
        ValueError: there is no prompt, or the file is not text.
    """
    if args.unconditional:
        return [NamedPrompt("")]
    if args.file is not None:
        numbered = enumerate(read_input(args.file).split("\n"), start=1)
        prompts = [NamedPrompt(line, f"{args.file}, line {number}") for number, line in numbered if line.strip()]
        if not prompts:
            raise ValueError(f"there is no prompt in {args.file}")
        return prompts
    text = "" if args.prompt is None and is_terminal(sys.stdin) else given_text(args.prompt)
    if not text and args.prompt != "":
        raise ValueError(
            "there is no prompt: write one in quotes, or give it on standard input, or use --file, --interactive or "
            "--unconditional (`numpy-gpt2 generate --help` tells more)"
        )
    return [NamedPrompt(text)]


def ask(lines: TextIO) -> str:
    """The next prompt of a conversation, from standard input. The question is shown only to a terminal.

    Raises:
        EOFError: there are no more.
    """
    if is_terminal(sys.stdin) and is_terminal(sys.stdout):
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  gives input() line editing and a history
        return input("prompt> ")
    if is_terminal(sys.stdin):
        print("prompt> ", end="", file=sys.stderr, flush=True)
    line = lines.readline()
    if not line:
        raise EOFError
    return line.removesuffix("\n")

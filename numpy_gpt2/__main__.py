"""The command line: `python -m numpy_gpt2 "Once upon a time"`."""

from __future__ import annotations

from . import interrupts  # isort: split

import argparse
import contextlib
import json
import logging
import sys
from typing import TYPE_CHECKING, NamedTuple, TextIO

from . import __version__
from .commands import (
    ArgumentParser,
    is_file,
    is_terminal,
    log_to_standard_error,
    progress_bar,
    read_input,
    run,
    standard_input,
)
from .model_options import add_model_options, announce, load_model, set_threads

if TYPE_CHECKING:
    from .generation import Generation
    from .gpt2 import GPT2
    from .prompts import Options

log = logging.getLogger("numpy_gpt2")

DESCRIPTION = """\
Continue a text with GPT-2, in plain NumPy. One continuation appears as it is made, several when they are done.

examples:
  python -m numpy_gpt2 "Once upon a time"
  python -m numpy_gpt2 "Once upon a time" --max-new-tokens 200 --seed 1
  python -m numpy_gpt2 "Hello, I'm a language model," -n 5
  python -m numpy_gpt2 "Alan Turing theorized that" --model 124M --greedy
  python -m numpy_gpt2 "Q: Who was Ada Lovelace? A:" --model 124M --stop "Q:"
  python -m numpy_gpt2 --file prompts.txt --json > continuations.jsonl
  python -m numpy_gpt2 --interactive
  cat letter.txt | python -m numpy_gpt2
"""
ENDED: dict[str | None, str] = {
    "end_of_text": "the model ended the text",
    "length": "as many tokens as were asked for are there",
    "stop": "a stop string came",
    "context": "the model's context is full; --slide goes on beyond it",
}


class NamedPrompt(NamedTuple):
    """A prompt, and which of several it is."""

    text: str
    where: str = ""


def parser() -> ArgumentParser:
    """The options."""
    parser = ArgumentParser(
        prog="numpy-gpt2", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    source = parser.add_argument_group("the prompt").add_mutually_exclusive_group()
    source.add_argument(
        "prompt",
        nargs="?",
        help="the text to continue, in quotes; - for standard input (without its last line end), which is also read if "
        "there is no prompt and it is not the terminal; a prompt that begins with a dash comes last, after --",
    )
    source.add_argument("-f", "--file", metavar="FILE", help="continue each line of this file; empty ones do not count")
    source.add_argument("-i", "--interactive", action="store_true", help="ask for one prompt after the other")
    source.add_argument("-u", "--unconditional", action="store_true", help="without a prompt: the model begins a text")

    length = parser.add_argument_group("how much")
    length.add_argument(
        "-n",
        "--num-return-sequences",
        metavar="N",
        type=int,
        default=1,
        help="write N continuations of each prompt (default: %(default)s)",
    )
    tokens = length.add_mutually_exclusive_group()
    tokens.add_argument("--max-new-tokens", metavar="N", type=int, help="end after N tokens (default: 64)")
    tokens.add_argument("--max-length", metavar="N", type=int, help="the same, but the prompt's tokens count, too")
    length.add_argument(
        "--stop",
        metavar="TEXT",
        action="append",
        help=r"end before this text; may be given several times (\n stands for the end of a line)",
    )
    length.add_argument(
        "--slide",
        action="store_true",
        help="where the text fills the model's context, keep only the newest half of it and go on",
    )

    how = parser.add_argument_group("which tokens")
    temperature = how.add_mutually_exclusive_group()
    temperature.add_argument(
        "--temperature",
        metavar="T",
        type=float,
        default=1.0,
        help="below 1 for less, above 1 for more surprising text (default: %(default)s)",
    )
    temperature.add_argument(
        "--greedy",
        dest="temperature",
        action="store_const",
        const=0.0,
        help="take the likeliest token each time, as a temperature of 0 does",
    )
    how.add_argument(
        "--top-k",
        metavar="K",
        type=int,
        default=40,
        help="draw only from the K likeliest tokens, 0 for all (default: %(default)s)",
    )
    how.add_argument(
        "--top-p",
        metavar="P",
        type=float,
        default=1.0,
        help="draw only from the likeliest tokens that have the probability P together (default: %(default)s, all)",
    )
    how.add_argument(
        "--repetition-penalty",
        metavar="R",
        type=float,
        default=1.0,
        help="above 1, what is in the text already becomes less likely, such as with 1.2 (default: %(default)s)",
    )
    how.add_argument("--seed", metavar="S", type=int, help="make the run repeatable")

    output = parser.add_argument_group("the output")
    output.add_argument("--full-text", action="store_true", help="print the prompt before its continuation")
    output.add_argument(
        "--json",
        action="store_true",
        help="print a JSON object for each continuation, in a line: prompt, text, ids (of the continuation), their "
        "log_probabilities (natural, by the model alone), and finish_reason (end_of_text, length, stop or context)",
    )
    output.add_argument(
        "--batch-size",
        metavar="N",
        type=int,
        default=16,
        help="work on N continuations at a time, where there are several: more are faster and need more memory "
        "(default: %(default)s)",
    )
    output.add_argument("--verbose", action="store_true", help="say on standard error why each text ended")
    add_model_options(parser)
    parser.add_argument("--version", action="version", version=f"numpy_gpt2 {__version__}")
    return parser


def continue_prompts(args: argparse.Namespace) -> None:
    """Prints the continuations that the options ask for."""
    set_threads(args.threads)  # before anything imports NumPy
    import numpy as np

    from .prompts import check_options
    from .sampling import check_whole_number

    interrupts.raise_from_now_on()
    options = check_options(generation_options(args))
    check_whole_number("--num-return-sequences", args.num_return_sequences, at_least=1)
    check_whole_number("--batch-size", args.batch_size, at_least=1)
    prompts = [] if args.interactive else read_prompts(args)
    model = load_model(args)
    n_tokens = [count(prompt, model, options) for prompt in prompts]  # all prompts are checked before anything is done
    announce(model, args)
    options = options._replace(seed=np.random.SeedSequence(args.seed))  # each call goes on with its random numbers
    if args.interactive:
        converse(model, options, args)
    else:
        write(prompts, sum(n_tokens), model, options, args)


def generation_options(args: argparse.Namespace) -> Options:
    """The options that `GPT2.generate` takes, under its names."""
    from .prompts import Options

    given = {name: getattr(args, name) for name in Options._fields if hasattr(args, name)}
    stop = [string.replace(r"\n", "\n") for string in args.stop or ()]
    return Options(**{**given, "stop": stop, "return_full_text": args.full_text})


# Where prompts come from


def read_prompts(args: argparse.Namespace) -> list[NamedPrompt]:
    """The prompts of all kinds but those of a conversation.

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
    if args.prompt not in (None, "-"):
        return [NamedPrompt(args.prompt)]
    text = read_input("-") if args.prompt == "-" or not is_terminal(sys.stdin) else ""
    if not text:
        raise ValueError(
            "there is no prompt: write one in quotes, or give it on standard input, or use --file, --interactive or "
            "--unconditional (--help tells more)"
        )
    return [NamedPrompt(text.removesuffix("\n"))]  # which `echo` adds


def ask(lines: TextIO) -> str:
    """The next prompt of a conversation, from standard input; the question is shown only where somebody can see it.

    Raises:
        EOFError: there is none.
    """
    if is_terminal(sys.stdin) and is_terminal(sys.stdout):
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  input() then has line editing and a history
        return input("prompt> ")
    if is_terminal(sys.stdin):
        print("prompt> ", end="", file=sys.stderr, flush=True)
    line = lines.readline()
    if not line:
        raise EOFError
    return line.removesuffix("\n")


# How continuations are written


def converse(model: GPT2, options: Options, args: argparse.Namespace) -> None:
    """Asks for a prompt and continues it, over and over. Ctrl-C ends a line or a text, an end of input it all."""
    with_somebody = is_terminal(sys.stdin)
    if with_somebody:
        log.info("Ctrl-C ends a text, Ctrl-D the conversation")
    lines = standard_input()
    number = 0
    with contextlib.suppress(EOFError):
        while True:
            try:
                if text := ask(lines):
                    number += 1
                    prompt = NamedPrompt(text, f"prompt {number}")
                    write([prompt], count(prompt, model, options), model, options, args)
            except ValueError as error:
                log.error("%s", error)
            except KeyboardInterrupt:
                if not with_somebody:
                    raise
                print(flush=True)


def write(prompts: list[NamedPrompt], n_tokens: int, model: GPT2, options: Options, args: argparse.Namespace) -> None:
    """Prints all continuations of some prompts: a single one as it is made, the others batch by batch.

    Args:
        prompts: the prompts.
        n_tokens: how many tokens a continuation of each may have, together.
        model, options, args: with what and how.
    """
    if args.file is None and args.num_return_sequences == 1 and not args.json:
        stream(prompts[0], n_tokens, model, options, args)
        return
    rows = [(prompt, number) for prompt in prompts for number in range(1, args.num_return_sequences + 1)]
    with progress_bar(n_tokens * args.num_return_sequences, "token") as progress:
        for i in range(0, len(rows), args.batch_size):
            batch = rows[i : i + args.batch_size]
            texts = [prompt.text for prompt, _ in batch]
            made = model.generate(texts, return_details=True, progress=progress.update, **options._asdict())
            progress.clear()
            for (prompt, number), generation in zip(batch, made, strict=True):
                show(generation, prompt, number, args)


def stream(prompt: NamedPrompt, n_tokens: int, model: GPT2, options: Options, args: argparse.Namespace) -> None:
    """Prints a continuation, of n_tokens at most, piece by piece; with a progress bar where nobody sees it grow."""
    with progress_bar(n_tokens, "token") if is_file(sys.stdout) else contextlib.nullcontext() as progress:
        pieces = model.stream(prompt.text, progress=progress.update if progress else None, **options._asdict())
        for piece in pieces:
            print(piece, end="", flush=True)
        print(flush=True)
    if args.verbose or pieces.finish_reason == "context":
        log.info(ENDED[pieces.finish_reason])


def count(prompt: NamedPrompt, model: GPT2, options: Options) -> int:
    """How many tokens a prompt may be continued by.

    Raises:
        ValueError: the prompt cannot be read or is too long; this says where it is from.
    """
    from .prompts import count_new_tokens, encode_prompt

    try:
        ids = encode_prompt(prompt.text, model.hparams, model.tokenizer, options.slide)
        return count_new_tokens(options, len(ids))
    except ValueError as error:
        raise ValueError(f"{prompt.where}: {error}" if prompt.where else str(error)) from None


def show(generation: Generation, prompt: NamedPrompt, number: int, args: argparse.Namespace) -> None:
    """Prints a continuation of a prompt, as JSON or under a line that says which it is."""
    title = prompt.where
    if args.num_return_sequences > 1:
        title += f"{', ' if title else ''}continuation {number}"
    if args.json:
        print(json.dumps({"prompt": prompt.text, **generation._asdict()}), flush=True)
    else:
        print(f"======== {title} ========\n{generation.text}", flush=True)
    if args.verbose or (generation.finish_reason == "context" and not args.json):
        log.info("%s", f"{title}: {ENDED[generation.finish_reason]}" if title else ENDED[generation.finish_reason])


def main() -> int:
    """The command line `python -m numpy_gpt2` and `numpy-gpt2`."""
    options = parser()
    args, others = options.parse_known_args()
    if unknown := [argument for argument in others if argument.startswith("-")]:
        options.error(f"unrecognized arguments: {' '.join(unknown)}")
    if others:
        options.error(f"a prompt of several words must be in quotes; {others[0]!r} is a second one")
    log_to_standard_error()
    return run(lambda: continue_prompts(args))


if __name__ == "__main__":
    sys.exit(main())

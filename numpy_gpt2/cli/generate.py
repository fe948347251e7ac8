"""`numpy-gpt2 generate`, and `numpy-gpt2` with nothing but a prompt: continues texts."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
from itertools import islice
from typing import Any

import numpy as np

from .. import checks
from ..decoding import speculation
from ..decoding.options import Options, check_options
from ..decoding.prompts import encode_prompt
from ..decoding.row import FinishReason, Generation
from ..gpt2 import GPT2
from .arguments import add_model_options, add_sampling_options, sampling_options
from .loading import announce, load_assistant, load_model
from .process import argument_text, is_file, is_terminal, progress_bar, show, show_object, standard_input
from .prompts import NamedPrompt, ask, read_prompts

log = logging.getLogger("numpy_gpt2")

HELP = "continue a text; the same as a prompt without a subcommand"
DESCRIPTION = (
    "Continue a text with GPT-2. A single continuation appears as it is generated, several when they are done."
)
EXAMPLES = """\
  numpy-gpt2 "Once upon a time"
  numpy-gpt2 "Once upon a time" --max-new-tokens 200 --seed 1
  numpy-gpt2 "Hello, I'm a language model," -n 5
  numpy-gpt2 "Alan Turing theorized that" --model gpt2 --greedy
  numpy-gpt2 "Q: Who was Ada Lovelace? A:" --model gpt2 --stop "Q:"
  numpy-gpt2 "one two three one two three one" --lookup
  numpy-gpt2 --file prompts.txt --json > continuations.jsonl
  numpy-gpt2 --interactive
  cat letter.txt | numpy-gpt2
"""

FINISHED: dict[str | None, str] = {
    "end_of_text": "the model ended the text",
    "length": "the text has as many tokens as were asked for",
    "stop": "a stop string came",
    "context": "the model's context is full; --slide goes on beyond it",
}


def add_options(parser: argparse.ArgumentParser, with_prompt: bool = True) -> None:
    """Adds the options; the prompt itself only if asked for."""
    source = parser.add_argument_group("the prompt").add_mutually_exclusive_group()
    if with_prompt:
        source.add_argument(
            "prompt",
            nargs="?",
            help="the text to continue, in quotes; - for standard input (without its last line end), which is also "
            "read if there is no prompt and it is not a terminal; a prompt that begins with a dash comes last, "
            "after --",
        )
    source.add_argument("-f", "--file", metavar="FILE", help="continue each line of this file, except empty lines")
    source.add_argument("-i", "--interactive", action="store_true", help="ask for one prompt after another")
    source.add_argument("-u", "--unconditional", action="store_true", help="no prompt: the model begins a text")

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
    tokens.add_argument("--max-length", metavar="N", type=int, help="the same, counted with the tokens of the prompt")
    length.add_argument(
        "--stop",
        metavar="TEXT",
        action="append",
        help=r"end before this text; may be given several times (\n stands for a line end)",
    )
    length.add_argument(
        "--slide",
        action="store_true",
        help="when the text fills the model's context, keep only the newest half of it and go on",
    )

    choice = add_sampling_options(parser)
    choice.add_argument("--seed", metavar="N", type=int, help="the same seed gives the same text")

    add_speculation_options(parser)
    output = parser.add_argument_group("the output")
    output.add_argument("--full-text", action="store_true", help="print the prompt before its continuation")
    output.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object per line for each continuation: prompt, text, ids (of the continuation), their "
        "log_probabilities (natural, by the model alone), and finish_reason (end_of_text, length, stop or context)",
    )
    output.add_argument(
        "--batch-size",
        metavar="N",
        type=int,
        default=16,
        help="generate N continuations at a time, if there are several: more are faster and need more memory "
        "(default: %(default)s)",
    )
    add_model_options(parser)


def add_speculation_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that draft tokens."""
    group = parser.add_argument_group("drafts", "guessed tokens that are checked at once, text by text")
    drafts = group.add_mutually_exclusive_group()
    drafts.add_argument(
        "--lookup",
        action="store_const",
        const=speculation.MOST,
        help="draft tokens from the text so far: the same text, sooner where it copies or repeats itself",
    )
    drafts.add_argument(
        "--assistant",
        metavar="NAME",
        help="draft tokens with this much smaller model of the same vocabulary, such as distilgpt2 for gpt2-large: the "
        "same text with --greedy, otherwise one of the same distribution",
    )


def run(args: argparse.Namespace) -> None:
    """Prints the continuations that the options ask for."""
    keywords = generation_options(args)
    options = check_options(**keywords)
    checks.check_whole_number("--num-return-sequences", args.num_return_sequences, at_least=1)
    checks.check_whole_number("--batch-size", args.batch_size, at_least=1)
    prompts = [] if args.interactive else read_prompts(args)
    model = load_model(args)
    if args.assistant is not None:
        keywords["assistant_model"] = load_assistant(args, model)
    n_tokens = [count_tokens(prompt, model, options) for prompt in prompts]  # checks all prompts before the first text
    announce(model, args)
    keywords["seed"] = np.random.SeedSequence(args.seed)  # each call continues its random numbers
    if args.interactive:
        converse(model, options, keywords, args)
    else:
        write(prompts, sum(n_tokens), model, keywords, args)


def generation_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options as keyword arguments of `GPT2.generate`."""
    return {
        "max_new_tokens": args.max_new_tokens,
        "max_length": args.max_length,
        "stop": [argument_text(string).replace(r"\n", "\n") for string in args.stop or ()],
        "seed": args.seed,
        "slide": args.slide,
        "return_full_text": args.full_text,
        "prompt_lookup_num_tokens": args.lookup,
        **sampling_options(args),
    }


def count_tokens(prompt: NamedPrompt, model: GPT2, options: Options) -> int:
    """The most tokens that a prompt may be continued by.

    Raises:
        ValueError: the prompt cannot be read or is too long; the message says where it is from.
    """
    try:
        ids = encode_prompt(prompt.text, model.hparams, model.tokenizer, options.slide)
        return options.count_new_tokens(len(ids))
    except ValueError as error:
        raise ValueError(f"{prompt.where}: {error}" if prompt.where else str(error)) from None


def converse(model: GPT2, options: Options, keywords: dict[str, Any], args: argparse.Namespace) -> None:
    """Asks for a prompt and continues it, over and over. Ctrl-C ends a line or a text, an end of input everything."""
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
                    write([prompt], count_tokens(prompt, model, options), model, keywords, args)
            except ValueError as error:
                log.error("%s", error)
            except KeyboardInterrupt:
                if not with_somebody:
                    raise
                print(flush=True)


def write(
    prompts: list[NamedPrompt], n_tokens: int, model: GPT2, keywords: dict[str, Any], args: argparse.Namespace
) -> None:
    """Prints the continuations of some prompts: a single one as it is generated, several batch by batch.

    Args:
        prompts: the prompts.
        n_tokens: the most tokens that one continuation of each may have, summed over the prompts.
        model, keywords, args: as given.
    """
    if args.file is None and args.num_return_sequences == 1 and not args.json:
        stream(prompts[0], n_tokens, model, keywords, args)
        return
    rows = ((prompt, number) for prompt in prompts for number in range(1, args.num_return_sequences + 1))
    with progress_bar(n_tokens * args.num_return_sequences, "token") as progress:
        while batch := [*islice(rows, min(args.batch_size, sys.maxsize))]:
            texts = [prompt.text for prompt, _ in batch]
            generations = model.generate(texts, return_details=True, progress=progress.update, **keywords)
            progress.clear()
            for (prompt, number), generation in zip(batch, generations, strict=True):
                show_generation(generation, prompt, number, args)


def stream(prompt: NamedPrompt, n_tokens: int, model: GPT2, keywords: dict[str, Any], args: argparse.Namespace) -> None:
    """Prints a continuation of at most n_tokens, piece by piece; with a progress bar where nobody sees it grow."""
    with progress_bar(n_tokens, "token") if is_file(sys.stdout) else contextlib.nullcontext() as progress:
        pieces = model.stream(prompt.text, progress=progress.update if progress else None, **keywords)
        for piece in pieces:
            show(piece, end="")
        print(flush=True)
    if args.lookup or args.assistant is not None:
        pieces.log_drafts()
    log.log(level(pieces.finish_reason), FINISHED[pieces.finish_reason])


def level(finish_reason: FinishReason | None) -> int:
    """How important it is to say why a text ended."""
    return logging.INFO if finish_reason == "context" else logging.DEBUG


def show_generation(generation: Generation, prompt: NamedPrompt, number: int, args: argparse.Namespace) -> None:
    """Prints a continuation, as JSON or below a line that says which one it is."""
    title = prompt.where
    if args.num_return_sequences > 1:
        title += f"{', ' if title else ''}continuation {number}"
    if args.json:
        show_object({"prompt": prompt.text, **generation._asdict()})
    else:
        show(f"======== {title} ========\n{generation.text}")
    reason = FINISHED[generation.finish_reason]
    log.log(logging.DEBUG if args.json else level(generation.finish_reason), f"{title}: {reason}" if title else reason)

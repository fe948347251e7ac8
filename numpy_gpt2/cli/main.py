"""The command `numpy-gpt2`: chooses a subcommand, and runs it.

A subcommand is a module beside this one, named in `SUBCOMMANDS`. It has `HELP`, a line for the list of all
subcommands; `EXAMPLES`; `add_options(parser)`; and `run(args)`.
"""

from __future__ import annotations

from . import interrupts  # isort: split

import argparse
import importlib
import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

from .. import __version__
from . import process
from .parser import ArgumentParser

log = logging.getLogger("numpy_gpt2")

COMMAND = "numpy-gpt2"
SUBCOMMANDS = ("generate", "page", "score", "explore", "vocabulary", "train", "download")
SHELLS = ("bash", "zsh", "fish")

DESCRIPTION = """\
GPT-2 in plain NumPy. A prompt without a subcommand is continued, as by `generate`:

  numpy-gpt2 "Once upon a time"

A prompt that is also the name of a subcommand goes after a double dash: numpy-gpt2 -- score
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command with these arguments, by default those of the process, and returns its exit status."""
    try:
        command = parse(list(sys.argv[1:] if arguments is None else arguments))
    except ImportError as error:
        sys.exit(f"numpy_gpt2: {process.sentence(error)}")
    finally:
        interrupts.raise_again()
    return process.run(command)


def parse(given: list[str]) -> Callable[[], object]:
    """Returns a function that does what the arguments ask for. Help, and a complaint about them, end the program."""
    if given[:1] in (["-h"], ["--help"]):
        whole_parser().parse_args(given)
    name = given.pop(0) if given and given[0] in SUBCOMMANDS else None
    subcommand = import_subcommand(name or "generate")
    parser = ArgumentParser(prog=f"{COMMAND} {name or 'generate'}", **texts(subcommand))
    subcommand.add_options(parser)
    if name is None:
        add_own_options(parser, hidden=True)
    args, others = parser.parse_known_args(given)
    is_bare = name is None and "--" not in given
    if is_bare and args.prompt in SUBCOMMANDS:
        parser.error(
            f"the name of a subcommand comes first: {COMMAND} {args.prompt} ...; as a prompt, it goes after --"
        )
    hint = other_meaning(args.prompt) if is_bare and args.prompt else ""
    if others:
        args.parser.error(complain(name or "generate", args.parser, given, others) + hint)
    if name is None and args.print_completion:
        return lambda: print(completion(args.print_completion))
    process.log_to_standard_error(args.log_level)
    if hint:
        log.info("%r is taken for a prompt%s", args.prompt, hint)
    return lambda: subcommand.run(args)


def import_subcommand(name: str) -> ModuleType:
    """The module of a subcommand."""
    return importlib.import_module(f".{name}", __package__)


def texts(subcommand: ModuleType) -> dict[str, Any]:
    """What the help of a subcommand says, apart from its options."""
    description = getattr(subcommand, "DESCRIPTION", f"{subcommand.HELP[0].upper()}{subcommand.HELP[1:]}.")
    return {"description": description, "epilog": f"examples:\n{subcommand.EXAMPLES}"}


def whole_parser(with_bare_prompt: bool = False) -> ArgumentParser:
    """All subcommands with all their options, to show and to complete them.

    Args:
        with_bare_prompt: whether the options of `generate` are those of the command itself, too.
    """
    parser = ArgumentParser(prog=COMMAND, description=DESCRIPTION, epilog=f"`{COMMAND} SUBCOMMAND --help` tells more.")
    add_own_options(parser)
    if with_bare_prompt:
        import_subcommand("generate").add_options(parser, with_prompt=False)
    subparsers = parser.add_subparsers(metavar="SUBCOMMAND", title="subcommands")
    for name in SUBCOMMANDS:
        subcommand = import_subcommand(name)
        subcommand.add_options(subparsers.add_parser(name, help=subcommand.HELP, **texts(subcommand)))
    return parser


def add_own_options(parser: ArgumentParser, hidden: bool = False) -> None:
    """Adds the options of the command itself, which do not go with a subcommand."""
    version = f"numpy_gpt2 {__version__}"
    own = [
        parser.add_argument("--version", action="version", version=version, help="print the version"),
        parser.add_argument(
            "--print-completion",
            metavar="SHELL",
            choices=SHELLS,
            help="print a script for tab completion in bash, zsh or fish (docs/guide.md says where to put it)",
        ),
    ]
    for action in own:
        action.help = argparse.SUPPRESS if hidden else action.help


def completion(shell: str) -> str:
    """A script for tab completion.

    Raises:
        ImportError: shtab is not installed.
    """
    try:
        import shtab
    except ImportError:
        raise ImportError('tab completion needs shtab: pip install "numpy_gpt2[completion]"') from None
    parser = whole_parser(with_bare_prompt=True)
    for _, action in all_actions(COMMAND, parser):
        if action.metavar in ("FILE", "DIR"):
            action.complete = shtab.FILE if action.metavar == "FILE" else shtab.DIRECTORY  # type: ignore[attr-defined]
    return str(shtab.complete(parser, shell))


def all_actions(command: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.Action]]:
    """All arguments of a parser and of its subparsers, each with the command that it belongs to."""
    for action in parser._actions:
        yield command, action
        if isinstance(action, argparse._SubParsersAction):
            for name, subparser in action.choices.items():
                yield from all_actions(f"{command} {name}", subparser)


def complain(name: str, parser: ArgumentParser, given: Sequence[str], others: Sequence[str]) -> str:
    """What is wrong with the arguments that the parser of a subcommand does not know, among those given."""
    import difflib  # only where something is wrong

    options = [argument for argument in others if argument.startswith("-") and argument != "-"]
    if "--" in given and others[0].startswith("-") and others[0] in given[given.index("--") :]:
        return f"what follows -- is the prompt: {others[0]} must come before it"
    for text in ("prompt", "text"):
        if not options and any(action.dest == text for action in parser._actions):
            return f"a {text} of several words must be in quotes; {others[0]!r} is a second one"
    complaint = f"unrecognized arguments: {' '.join(options or others)}"
    for command, action in all_actions(COMMAND, whole_parser()):
        if options and options[0].partition("=")[0] in action.option_strings:
            return f"{complaint}; `{command}` has {action.option_strings[-1]}"
    if not options:
        return complaint
    known = parser._option_string_actions
    beginning = options[0].partition("=")[0]
    beginning = beginning if beginning.startswith("--") else f"-{beginning}"
    close = [option for option in known if option.startswith(beginning)]
    close = close or difflib.get_close_matches(options[0], known, n=1)
    return f"{complaint}; did you mean {' or '.join(close)}?" if close else complaint


def other_meaning(prompt: str) -> str:
    """A hint, if a prompt is the name of a file, or nearly that of a subcommand; otherwise nothing."""
    if os.path.isfile(prompt):  # noqa: PTH113  Path.is_file raises an error for a long prompt
        return f"; did you mean `{COMMAND} < {shlex.quote(prompt)}`?"
    if not prompt.isalpha():
        return ""
    import difflib  # only for a prompt of one word

    commands = {name: f"{COMMAND} --{name}" for name in ("help", "version")}
    commands |= {name: f"{COMMAND} {name}" for name in SUBCOMMANDS}
    commands |= {view: f"{COMMAND} explore {view}" for view in import_subcommand("explore").VIEWS}
    for name in difflib.get_close_matches(prompt, commands, n=1, cutoff=0.8):
        return f"; did you mean `{commands[name]}`?"
    return ""

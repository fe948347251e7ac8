"""A parser of command lines, which complains in one line."""

from __future__ import annotations

import argparse
import sys
from typing import Any, NoReturn

from .process import one_line


class ArgumentParser(argparse.ArgumentParser):
    """An argparse parser that complains in one line, keeps line breaks, and takes `--top_k` for `--top-k`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False, **options})
        self.set_defaults(parser=self)  # so that whoever has the arguments can complain about them: args.parser.error

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The arguments that are known, and the others."""
        given = list(sys.argv[1:] if args is None else args)
        end = given.index("--") if "--" in given else len(given)
        for i, argument in enumerate(given[:end]):
            name, *value = argument.split("=", 1)
            if name.startswith("--"):
                given[i] = "=".join([name.replace("_", "-"), *value])
        first = given[0].split("=", 1)[0] if given else ""
        is_option = first.startswith("-") and first not in ("-", "--")
        if self._subparsers and is_option and first not in self._option_string_actions:  # of `explore`
            self.error(f"what to look at comes before the options: {self.prog} VIEW ... {first}")
        return super().parse_known_args(given, namespace)

    def error(self, message: str) -> NoReturn:
        """Ends the program with exit status 2."""
        self.exit(2, f"numpy_gpt2: {one_line(message)} (`{self.prog} --help` lists the options)\n")

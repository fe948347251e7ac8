"""The parser of all subcommands: one line of complaint, underscores for dashes, line breaks that stay."""

from __future__ import annotations

import argparse

import pytest

from numpy_gpt2.cli.parser import ArgumentParser


@pytest.fixture
def parser() -> ArgumentParser:
    parser = ArgumentParser(prog="numpy-gpt2 score", description="First line.\n\n  second line")
    parser.add_argument("--top-k", type=int)
    parser.add_argument("text", nargs="?")
    return parser


@pytest.mark.parametrize("argument", ["--top-k=3", "--top_k=3"])
def test_a_name_may_have_underscores(parser: ArgumentParser, argument: str) -> None:
    assert parser.parse_args([argument]).top_k == 3
    assert parser.parse_args(argument.split("=")).top_k == 3


@pytest.mark.parametrize("argument", ["--top_k", "a_b"])
def test_after_a_double_dash_nothing_is_changed(parser: ArgumentParser, argument: str) -> None:
    assert parser.parse_args(["--", argument]).text == argument


def test_a_value_keeps_its_underscores(parser: ArgumentParser) -> None:
    parser.add_argument("--model")
    assert parser.parse_args(["--model=a_b"]).model == "a_b"


def test_line_breaks_of_a_description_stay(parser: ArgumentParser) -> None:
    assert "First line.\n\n  second line" in parser.format_help()


def test_whoever_has_the_arguments_can_complain(parser: ArgumentParser, capsys: pytest.CaptureFixture[str]) -> None:
    args = parser.parse_args([])
    with pytest.raises(SystemExit) as end:
        args.parser.error("no text")
    assert end.value.code == 2
    assert capsys.readouterr() == ("", "numpy_gpt2: no text (`numpy-gpt2 score --help` lists the options)\n")


def test_a_subparser_complains_in_its_own_name(capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser(prog="numpy-gpt2 explore")
    parser.add_subparsers().add_parser("lens")
    args: argparse.Namespace = parser.parse_args(["lens"])
    with pytest.raises(SystemExit):
        args.parser.error("no text")
    assert "`numpy-gpt2 explore lens --help`" in capsys.readouterr().err

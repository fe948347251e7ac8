"""The options that several subcommands have: those of the model, and those of the record of sampling."""

from __future__ import annotations

import pytest

from numpy_gpt2.cli.arguments import add_model_options, add_sampling_options, sampling_options
from numpy_gpt2.cli.parser import ArgumentParser
from numpy_gpt2.sampling import OPTIONS, Option


@pytest.mark.parametrize("off", [False, True])
def test_sampling_options_not_given_have_their_default_or_no_effect(off: bool) -> None:
    parser = ArgumentParser()
    add_sampling_options(parser, off)
    expected = {option.name: option.off if off else option.default for option in OPTIONS}
    assert sampling_options(parser.parse_args([])) == expected


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_each_sampling_option_is_read_from_the_record(option: Option) -> None:
    parser = ArgumentParser()
    add_sampling_options(parser)
    name = f"--{option.name.replace('_', '-')}"
    value = sampling_options(parser.parse_args([name, "3"]))[option.name]
    assert (type(value), value) == (option.type, 3)
    help = " ".join(parser.format_help().split())
    assert f"{name} {'N' if option.type is int else 'X'} {option.help} (default: {option.default:g})" in help


def test_greedy_is_a_temperature_of_0_and_excludes_another() -> None:
    parser = ArgumentParser()
    add_sampling_options(parser)
    assert sampling_options(parser.parse_args(["--greedy"]))["temperature"] == 0
    with pytest.raises(SystemExit):
        parser.parse_args(["--greedy", "--temperature", "1"])


def test_model_options_are_all_none_by_default() -> None:
    parser = ArgumentParser()
    add_model_options(parser)
    args = vars(parser.parse_args([]))
    assert {name: args[name] for name in ("model", "models_dir", "backend", "threads")} == dict.fromkeys(
        ("model", "models_dir", "backend", "threads")
    )

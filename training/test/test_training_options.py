"""Numbers on the command line: those that make no sense end it before anything is begun."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

import pytest

from instructvla_sim import FAMILIES
from instructvla_training import cli

PARSER = cli.parser()
ZERO_MEANS_SOMETHING = {
    "data annotate --max-cost",
    "data annotate --price-input",
    "data annotate --price-output",
    "data convert --without",
    "data lint --images",
    "data to-bag --episodes",
    "finetune --multimodal-ratio",
}


def numeric(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[str]:
    """Every option of the parser and its sub-commands that is neither a word nor a path."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, inner in action.choices.items():
                yield from numeric(inner, (*words, word))
        elif getattr(action.type, "__name__", "str") not in ("str", "Path"):
            yield " ".join((*words, action.option_strings[0]))


NUMERIC = list(numeric(PARSER))


def test_the_walk_finds_the_options():
    assert {"make --steps", "finetune --weights", "data annotate --timeout", "bench training --samples"} < set(NUMERIC)
    assert set(NUMERIC) > ZERO_MEANS_SOMETHING


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "many", "0"])
@pytest.mark.parametrize("name", NUMERIC)
def test_a_number_that_makes_no_sense_is_a_wrong_command_line(name, value, capsys):
    *words, option = name.split()
    with pytest.raises(SystemExit) as ended:
        PARSER.parse_args([*words, f"{option}={value}"])
    refusal = re.search(rf"argument {option}: found {value}, expected .*number", capsys.readouterr().err)
    assert ended.value.code == 2 and bool(refusal) == (value != "0" or name not in ZERO_MEANS_SOMETHING)


def test_all_weights_are_looked_at_and_heights_are_even(capsys):
    for words in (["finetune", "--weights", "1", "nan"], ["data", "convert", "--height", "25"]):
        with pytest.raises(SystemExit):
            PARSER.parse_args(words)
        assert f"found {words[-1]}, expected" in capsys.readouterr().err


def test_families_are_the_simulation_s(capsys):
    assert cli.FAMILIES == FAMILIES
    with pytest.raises(SystemExit) as ended:
        PARSER.parse_args(["evaluate", "nano", "--families", "foo"])
    assert ended.value.code == 2 and "'foo'" in capsys.readouterr().err

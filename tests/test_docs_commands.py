"""Every command line in the documentation is one that the programs accept; nothing is started."""

import argparse
import re
import runpy
import shlex
from collections.abc import Iterator

import pytest
import yaml
from docs_pages import REPOSITORY, Found, command_lines

PACKAGES = REPOSITORY / "src" / "instructvla_msgs", REPOSITORY / "ros2_ws/src/interfaces/interbotix_xs_msgs"


def spell(found: Found) -> str:
    """A test's name."""
    return f"{found.page}: {found.text}"


def accept(parser: argparse.ArgumentParser, words: list[str], in_text: bool) -> list[str]:
    """The name:=value words of a line that the parser accepts. A mere mention must name a sub-command."""
    if in_text and names_a_command(parser, words):
        return []
    arguments, rest = parser.parse_known_args(words)
    return [*getattr(arguments, "arguments", []), *rest]


def names_a_command(parser: argparse.ArgumentParser, words: list[str]) -> bool:
    """Whether the words are a sub-command, or one of its sub-commands, without any argument."""
    for word in words:
        commands = next((a for a in parser._actions if isinstance(a, argparse._SubParsersAction)), None)
        if commands is None or word not in commands.choices:
            return False
        parser = commands.choices[word]
    return True


def graph_arguments(line: list[str], words: list[str]) -> dict[str, str]:
    """name:=value words, known to the graph of the robot that the line names, or of the WidowX."""
    from instructvla_ros.cli.up import parse_assignments, startable
    from instructvla_ros.graph.description import resolve

    known = startable()
    robots = [word.removesuffix(".launch.py") for word in line if word.removesuffix(".launch.py") in known]
    given = parse_assignments(words)
    if {"--sim", "sim.launch.py"} & set(line):
        given["sim"] = "true"
    assert resolve(known[robots[0] if robots else "widowx"], given)
    return given


@pytest.mark.parametrize("found", command_lines("instructvla", "./demo.sh"), ids=spell)
def test_instructvla_accepts_the_line(found: Found) -> None:
    from instructvla_ros.cli.main import parser

    words = shlex.split(found.text)[1:]
    if found.text.startswith("./demo.sh"):
        words = ["demo", *words]
    graph_arguments(words, accept(parser(), words, found.in_text))


@pytest.mark.parametrize("found", command_lines("instructvla-train"), ids=spell)
def test_instructvla_train_accepts_the_line(found: Found) -> None:
    from instructvla_training import cli

    assert accept(cli.parser(), shlex.split(found.text)[1:], found.in_text) == []


def everything(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser, argparse.Action]]:
    """All arguments of a command and of its sub-commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            assert {choice.dest for choice in action._choices_actions if choice.help} == set(action.choices)
            for inner in action.choices.values():
                yield from everything(inner)
        else:
            yield f"{parser.prog} {action.dest}", parser, action


@pytest.mark.parametrize("program", ["instructvla", "instructvla-train"])
def test_every_argument_has_a_help_line_with_its_default_and_every_command_a_purpose(program: str) -> None:
    found = list(everything(runpy.run_path(str(REPOSITORY / "tools" / "reference_pages.py"))["parsers"]()[program]()))
    assert len(found) > 20
    for name, parser, action in found:
        assert action.help, f"{name} has no help"
        assert parser.description, f"{parser.prog} says not what it is for"
        if action.metavar == "S":
            assert "second" in action.help, f"{name} names no unit"
        if action.option_strings and action.nargs != 0 and action.default not in (None, "", [], argparse.SUPPRESS):
            said = parser._get_formatter()._get_help_string(action)
            assert "default" in said, f"{name} does not tell its default"


@pytest.mark.parametrize("found", command_lines("ros2"), ids=spell)
def test_a_ros2_line_names_launch_files_types_and_fields_that_exist(found: Found) -> None:
    words = shlex.split(found.text)
    if words[1:3] == ["launch", "instructvla"]:
        assert (REPOSITORY / "launch" / words[3]).is_file()
        graph_arguments(words, [word for word in words[4:] if word != "--show-args"])
    if words[1:3] == ["service", "call"] and words[4].startswith(("instructvla_msgs", "interbotix_xs_msgs")):
        assert set(yaml.safe_load(words[5])) <= request_fields(words[4])


def request_fields(type_name: str) -> set[str]:
    """Fields of a service's request, from its definition."""
    package, _, name = type_name.split("/")
    (folder,) = (path for path in PACKAGES if path.name == package)
    request = (folder / "srv" / f"{name}.srv").read_text(encoding="utf-8").split("---")[0]
    return {line.split()[1] for line in request.splitlines() if line and not line.startswith("#")}


@pytest.mark.parametrize("found", command_lines("ros2"), ids=spell)
def test_a_ros2_line_names_topics_and_services_of_the_reference(found: Found) -> None:
    page = (REPOSITORY / "docs" / "reference" / "topics.md").read_text(encoding="utf-8")
    known = set(re.findall(r"`([\w/<>]+)`", page))
    words = shlex.split(found.text)
    if words[1] in ("topic", "service", "bag"):
        for word in words:
            if word.startswith("/instructvla/"):
                assert word.removeprefix("/instructvla/") in known
            elif word.startswith("/wx250s/"):
                assert {word.replace("wx250s", "<robot_name>"), word.split("/")[-1]} & known


@pytest.mark.parametrize("found", command_lines("tools/setup.sh", "tools/vendor.sh", "./test.sh"), ids=spell)
def test_a_script_that_is_named_exists(found: Found) -> None:
    assert (REPOSITORY / found.text.split(" ")[0]).is_file()


def test_the_four_commands_of_the_readme_stand_beside_those_without_ros() -> None:
    rows = (REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()
    for ros2, without in (
        ("ros2 launch instructvla widowx.launch.py", "instructvla up widowx"),
        ("ros2 topic echo /instructvla/reasoning", "instructvla watch"),
        ("ros2 service call /instructvla/set_instruction", "instructvla say"),
        ("ros2 bag", "bag"),
    ):
        assert any(row.startswith(f"| `{ros2}") and without in row.split(" | ")[1] for row in rows), ros2


def test_there_are_command_lines_to_check() -> None:
    assert len(command_lines("instructvla", "./demo.sh")) > 15
    assert len(command_lines("instructvla-train")) > 8
    assert len(command_lines("ros2")) > 15

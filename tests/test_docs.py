"""The documentation leads somewhere, says nothing that is out of date, and names everything it should."""

import ast
import importlib
import re
import runpy
from pathlib import Path

import pytest
import yaml
from docs_pages import PAGES, REPOSITORY, Found, anchors, code_blocks, links, name, read

REFERENCE = REPOSITORY / "docs" / "reference"
FOREIGN = re.compile(
    r"/work\b|/tmp\b|\.\./shared|\.library\b|\bsubagent|\bhelper (?:agent|tool)|\bissues? #?\d", re.I
)
NODES = REPOSITORY / "src" / "instructvla_ros" / "instructvla_ros" / "nodes"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_relative_link_and_picture_leads_to_something(page: Path) -> None:
    lost = []
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or not file.is_relative_to(REPOSITORY):
            lost.append(target)
        elif anchor and anchor not in anchors(file):
            lost.append(f"{target} (has {sorted(anchors(file))})")
    assert lost == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen, waiting = set(), [REPOSITORY / "README.md", REPOSITORY / "docs" / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md" or not page.is_file():
            continue
        seen.add(page)
        waiting += [(page.parent / target.partition("#")[0]).resolve() for target in links(page)]
    assert {name(page) for page in PAGES} - {name(page) for page in seen} == set()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_names_nothing_that_only_exists_elsewhere(page: Path) -> None:
    assert FOREIGN.findall(read(page)) == []


def test_the_generated_tables_are_up_to_date() -> None:
    pages = runpy.run_path(str(REPOSITORY / "tools" / "reference_pages.py"))["pages"]()
    assert len(pages) >= 5
    stale = [name(page) for page, text in pages.items() if page.read_text(encoding="utf-8") != text]
    assert stale == [], "run: python tools/reference_pages.py"


def test_the_parameter_page_names_every_parameter_of_the_yaml_files() -> None:
    page = (REFERENCE / "parameters.md").read_text(encoding="utf-8")
    for file in sorted((REPOSITORY / "launch" / "config").glob("*.yaml")):
        for node, content in yaml.safe_load(file.read_text(encoding="utf-8")).items():
            assert f"### `{node.rsplit('/', 1)[-1]}`" in page
            for parameter in flat(content["ros__parameters"]):
                assert f"`{parameter}`" in page, f"{file.name}: {parameter}"


def flat(values: dict[str, object], prefix: str = "") -> list[str]:
    """Names of nested parameters, with dots."""
    names: list[str] = []
    for key, value in values.items():
        names += flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
    return names


def test_the_message_page_names_every_field_of_every_definition() -> None:
    page = (REFERENCE / "messages.md").read_text(encoding="utf-8")
    definitions = [
        file
        for package in (
            REPOSITORY / "src/instructvla_msgs",
            REPOSITORY / "ros2_ws/src/interfaces/interbotix_xs_msgs",
        )
        for kind in ("msg", "srv", "action")
        for file in sorted(package.glob(f"{kind}/*.{kind}"))
    ]
    assert len(definitions) > 10
    for file in definitions:
        title = f"### `{file.suffix[1:]}/{file.stem}`"
        assert title in page
        section = page.split(title, 1)[1].split("\n### ", 1)[0]
        for line in file.read_text(encoding="utf-8").splitlines():
            code = line.partition("#")[0].split()
            if len(code) > 1:
                assert f"`{code[1]}`" in section, f"{file.name}: {code[1]}"


def endpoints() -> list[tuple[str, str, str]]:
    """(topic or service, type, profile) that the nodes create under a constant name."""
    found = []
    for file in sorted(NODES.glob("*_node.py")):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            kind = (
                call.func.attr if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) else ""
            )
            if kind not in ("create_publisher", "create_subscription", "create_service"):
                continue
            if not (isinstance(call.args[1], ast.Constant) and isinstance(call.args[0], ast.Name)):
                continue
            profiles = [
                a.attr for a in call.args if isinstance(a, ast.Attribute) and ast.unparse(a.value) == "qos"
            ]
            found.append((call.args[1].value, call.args[0].id, profiles[0] if profiles else ""))
    return found


def test_the_topic_page_has_every_topic_and_service_of_the_nodes() -> None:
    rows = [
        line for line in (REFERENCE / "topics.md").read_text(encoding="utf-8").splitlines() if line[:1] == "|"
    ]
    found = endpoints()
    assert len(found) > 10
    for topic, kind, profile in found:
        short = topic.removeprefix("~/")
        fitting = [row for row in rows if re.match(rf"\| `(?:\w+/)?{re.escape(short)}`", row)]
        assert any(f"/{kind}`" in row and (not profile or f"`{profile}`" in row) for row in fitting), (
            f"no row for {topic} of type {kind} with profile {profile or 'of services'}"
        )


def test_the_checkpoint_page_names_every_key_of_the_manifest() -> None:
    manifest = pytest.importorskip("instructvla_model.manifest")
    presets = importlib.import_module("instructvla_model.presets")
    page = (REFERENCE / "checkpoints.md").read_text(encoding="utf-8")
    keys = manifest.to_dict(manifest.new_manifest(presets.preset("tiny"), "base", None))
    assert [key for key in keys if f"`{key}`" not in page] == []


def test_checkpoints_are_called_by_the_names_under_which_they_ship() -> None:
    shipped = {f"nano-{stage}" for stage in ("base", "expert", "franka", "generalist")}
    for page in PAGES:
        named = re.findall(r"checkpoints/([a-z]\w+-\w+|nano\w*)|checkpoint:=(nano[\w-]*)", read(page))
        assert {first or second for first, second in named} <= shipped, name(page)


def test_the_fault_page_has_exactly_the_fault_ids_of_the_code() -> None:
    page = (REFERENCE / "faults.md").read_text(encoding="utf-8")
    described = set(re.findall(r"^\| (F\d\d) \|", page, flags=re.MULTILINE))
    sources = [
        *(REPOSITORY / "launch" / "config").glob("*.yaml"),
        *(REPOSITORY / "src/instructvla_ros/instructvla_ros").rglob("*.py"),
    ]
    used = {fault for file in sources for fault in re.findall(r"\bF\d\d\b", file.read_text(encoding="utf-8"))}
    assert described == used


def test_the_diagram_shows_every_node_that_runs_on_a_robot() -> None:
    from instructvla_ros.graph.widowx import WIDOWX

    (diagram,) = code_blocks("mermaid")
    nodes = {node.name for node in WIDOWX.nodes}
    assert {node for node in nodes if node not in diagram.text} == set()


@pytest.mark.parametrize("block", code_blocks("python"), ids=lambda block: block.page)
def test_what_python_examples_import_exists(block: Found) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module.endswith(("ros_client", "rosbags.highlevel")):
                pytest.importorskip("rclpy")
            module = importlib.import_module(node.module)
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []

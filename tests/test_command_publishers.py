"""Only a robot's driver makes publishers of commands, and only the controller node has a driver."""

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCES = Path(__file__).parents[1] / "src" / "instructvla_ros" / "instructvla_ros"
COMMANDS = {
    "JointGroupCommand",
    "JointSingleCommand",
    "JointTrajectoryCommand",
    "JointTrajectory",
    "JointJog",
    "TwistStamped",
    "PoseStamped",
    "GripperCommand",
}
"""Message and action types that move a robot."""


def publishers(tree: ast.AST) -> Iterator[str]:
    """Names of the types for which a publisher or an action client is made."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        arguments = [a for a in node.args if isinstance(a, (ast.Name, ast.Attribute))]
        if called in ("create_publisher", "ActionClient"):
            yield from (a.id if isinstance(a, ast.Name) else a.attr for a in arguments)


def makers(kinds: set[str]) -> dict[str, set[str]]:
    """Which modules make publishers of these types."""
    found = {}
    for file in SOURCES.rglob("*.py"):
        made = kinds & set(publishers(ast.parse(file.read_text(encoding="utf-8"))))
        if made:
            found[file.relative_to(SOURCES).as_posix()] = made
    return found


def imports(name: str) -> set[str]:
    """Modules that import this name."""
    found = set()
    for file in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and name in {alias.name for alias in node.names}:
                found.add(file.relative_to(SOURCES).as_posix())
    return found


def test_only_the_drivers_make_publishers_of_commands() -> None:
    assert makers(COMMANDS) == {
        "nodes/driver_client.py": {"JointGroupCommand", "JointSingleCommand"},
        "nodes/routes.py": {"JointTrajectory", "PoseStamped", "TwistStamped", "GripperCommand"},
    }


def test_only_a_robots_controller_node_has_its_driver() -> None:
    assert imports("DriverClient") == {"nodes/widowx_controller_node.py"}
    assert imports("FrankaDriver") == {"nodes/franka_controller_node.py"}
    routes = {"JointTrajectoryRoute", "PoseRoute", "TwistRoute", "WidthRoute"}
    users = set().union(*(imports(route) for route in routes))
    assert users == {"nodes/franka_driver.py", "nodes/arm_controller_node.py"}


def test_the_search_finds_publishers_however_they_are_written() -> None:
    tree = ast.parse("a = n.create_publisher(JointGroupCommand, 't', 1)\nb = ActionClient(n, m.GripperCommand, 'g')")
    assert {"JointGroupCommand", "GripperCommand"} <= set(publishers(tree))

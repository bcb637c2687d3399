"""instructvla replay: what would the policy have done? A recording through the model, scored, as a report.

With --live the recording is played into policy nodes that run already, without a controller, at its recorded rate.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instructvla_ros.cli.up import parse_assignments

if TYPE_CHECKING:
    from instructvla_ros.bags.evaluate import Evaluation
    from instructvla_ros.bags.replay import ReplayOptions

_GRAPH_LIMIT_S = 5.0
REGRESSED = 3
"""Exit status where the gate does not hold."""


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `replay`."""
    parser = commands.add_parser("replay", help="score a policy on recordings, or play one into the running graph")
    parser.add_argument(
        "bags", nargs="+", type=Path, metavar="BAG", help="folder of a rosbag2, an .mcap or a .db3 file"
    )
    parser.add_argument(
        "--checkpoint", action="append", default=[], metavar="C",
        help="folder or name; twice to compare two; default: the one that ships with the project",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, default=None, metavar="FOLDER", help="where the report goes; default BAG_report"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the flow's noise and of the intervals")
    parser.add_argument(
        "--instruction", default="", metavar="TEXT", help="instead of the recorded one, or where there is none"
    )
    parser.add_argument("--no-think", action="store_true", help="without reasoning in text")
    parser.add_argument(
        "--actions", choices=("auto", "steps", "commands", "states"), default="auto",
        help="what was done: executed steps, joint goals sent to an Interbotix driver, or states reached",
    )  # fmt: skip
    parser.add_argument(
        "--topic", action="append", default=[], metavar="ROLE:=TOPIC", help="which topic is primary, wrist, joints, …"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NODE.PARAMETER:=VALUE",
        help="a parameter of the nodes, for instance reasoning_node.latent_period_s:=0.2",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="where the model runs: auto, cpu, cuda")
    parser.add_argument("--baseline", type=Path, metavar="FILE", help="report.json of an older run to compare with")
    parser.add_argument(
        "--max-regression", default="5%", metavar="SHARE", help="how much worse than the baseline still passes"
    )
    parser.add_argument("--live", action="store_true", help="play into a graph that has no controller, with /clock")
    parser.add_argument("--rate", type=float, default=1.0, help="live: speed, 1 is the recorded one")
    parser.set_defaults(run=run)


def share(text: str) -> float:
    """A share from "5%" or "0.05"; raises ValueError."""
    try:
        value = float(text.rstrip("% ")) / (100.0 if text.strip().endswith("%") else 1.0)
    except ValueError as error:
        raise ValueError(f"--max-regression {text!r}; expected a share such as 5% or 0.05") from error
    if not 0.0 <= value < 10.0:
        raise ValueError(f"--max-regression {text!r}; expected a share from 0 to 1000 %")
    return value


def options_of(arguments: argparse.Namespace) -> ReplayOptions:
    """The replay's options from the command line; raises ValueError."""
    import yaml

    from instructvla_ros.bags.parameters import check
    from instructvla_ros.bags.replay import ReplayOptions

    parameters: dict[str, dict[str, Any]] = {}
    for name, value in parse_assignments(arguments.set).items():
        node, _, parameter = name.partition(".")
        if node not in ("reasoning_node", "action_expert_node") or not parameter:
            raise ValueError(f"--set {name}; expected reasoning_node.PARAMETER or action_expert_node.PARAMETER")
        try:
            parameters.setdefault(node, {})[parameter] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"--set {name}:={value} is no value that YAML knows: {reason}") from error
    check(parameters)
    return ReplayOptions(
        seed=arguments.seed,
        instruction=arguments.instruction,
        think=False if arguments.no_think else None,
        actions=arguments.actions,
        topics=parse_assignments(arguments.topic),
        parameters=parameters,
    )


def run(arguments: argparse.Namespace) -> int:
    """Replay, score, write; 0, or REGRESSED where the baseline is missed."""
    options, limit = options_of(arguments), share(arguments.max_regression)
    if arguments.live:
        return _play(arguments, options)
    from instructvla_ros.bags.evaluate import evaluate, load_checkpoints
    from instructvla_ros.cli.progress import ProgressBar

    runtimes = load_checkpoints(arguments.checkpoint, arguments.device)
    made = evaluate(
        arguments.bags,
        runtimes,
        options,
        arguments.output,
        baseline=arguments.baseline,
        limit=limit,
        progress=ProgressBar,
    )
    _print(made)
    return REGRESSED if made.regressed else 0


def _play(arguments: argparse.Namespace, options: ReplayOptions) -> int:
    from instructvla_ros.bags.bag import Bag
    from instructvla_ros.bags.play import Player
    from instructvla_ros.cli.ros_client import RosClient

    with RosClient(arguments.namespace) as client:
        for path in arguments.bags:
            with Bag(path) as bag:
                player = Player(client.node, bag, options, rate=arguments.rate)
                player.wait_for_graph(_GRAPH_LIMIT_S)
                played = player.play()
                problems = bag.problems
            for problem in problems:
                print(f"{path}: {problem}", file=sys.stderr)
            print(f"{path}: {played.messages} messages and {played.instructions} instructions played")
            print(f"the latest came {played.latest_s * 1e3:.0f} ms after its time")
    return 0


def _print(made: Evaluation) -> None:
    from instructvla_ros.bags.report.page import switches

    report = made.report
    for bag in report["unreadable"]:
        print(f"{bag['name']} is not in the report: {bag['reason']}", file=sys.stderr)
    for bag in report["bags"]:
        for problem in bag["problems"]:
            print(f"{bag['name']}: {problem['where']}: {problem['what']} ({problem['count']}x)", file=sys.stderr)
    names = list(report["summary"])
    print(f"{'':30s}" + "".join(f"{name[:18]:>20s}" for name in names))
    for metric, cell in next(iter(report["summary"].values())).items():
        values = [report["summary"][name][metric]["mean"] for name in names]
        texts = ["-" if value is None else f"{value:.4g} {cell['unit']}" for value in values]
        print(f"{metric:30s}" + "".join(f"{text:>20s}" for text in texts))
    counts = [switches(report["summary"][name]) for name in names]
    print(f"{'switches missed, spurious':30s}" + "".join(f"{text:>20s}" for text in counts))
    for row in made.regressions:
        verdict = "WORSE " if row.failed else "ok    "
        print(f"{verdict} {row.metric:30s} {row.before:.4g} -> {row.after:.4g}, worse by {100 * row.worse_by:+.1f} %")
    seconds = sum(bag["duration_s"] for bag in report["bags"])
    print(f"{seconds:.0f} s replayed in {made.took_s:.0f} s; report in {made.folder / 'index.html'}")

"""Command line: how often the demonstrator succeeds, and how fast, per family and per object.

python -m instructvla_sim.benchmark --families pick place --episodes 100 --camera primary
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field

from instructvla_sim import FAMILIES, RenderSpec, World, WorldConfig
from instructvla_sim.demonstrator import Demonstrator
from instructvla_sim.lockstep import Lockstep
from instructvla_sim.robots import ROBOTS

_log = logging.getLogger("instructvla_sim.benchmark")


@dataclass
class FamilyReport:
    """Counts of one family; `per_object` maps a name to [successes, episodes]."""

    family: str
    episodes: int = 0
    successes: int = 0
    first_approached_right: int = 0
    steps: int = 0
    cpu_s: float = 0.0
    failed_seeds: list[int] = field(default_factory=list)
    per_object: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))

    def summary(self) -> dict[str, object]:
        """What is printed, as one JSON object."""
        return {
            "family": self.family,
            "episodes": self.episodes,
            "success": round(self.successes / self.episodes, 4),
            "first_approached_right": round(self.first_approached_right / self.episodes, 4),
            "mean_steps": round(self.steps / self.episodes, 1),
            "episodes_per_cpu_second": round(self.episodes / self.cpu_s, 2),
            "failed_seeds": self.failed_seeds,
            "per_object": {k: f"{a}/{b}" for k, (a, b) in sorted(self.per_object.items())},
        }


def evaluate(lockstep: Lockstep, family: str, episodes: int, first_seed: int, max_steps: int = 60) -> FamilyReport:
    """Run the demonstrator on `episodes` seeds of one family."""
    expert = Demonstrator(lockstep.world)
    report = FamilyReport(family)
    begin = time.process_time()
    for seed in range(first_seed, first_seed + episodes):
        lockstep.start(seed, [family])
        result = lockstep.run(lambda _: expert.act().action, max_steps)
        report.episodes += 1
        report.successes += result.success
        report.steps += result.steps
        report.first_approached_right += result.progress.first_approached == result.task.target
        for name in filter(None, (result.task.target, result.task.place)):
            report.per_object[name][0] += result.success
            report.per_object[name][1] += 1
        if not result.success:
            report.failed_seeds.append(seed)
    report.cpu_s = time.process_time() - begin
    return report


def main(argv: list[str] | None = None) -> int:
    """Parse arguments, run, print one JSON line per family. Exit status 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--robot", choices=sorted(ROBOTS), default="wx250s")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--camera", action="append", default=[], choices=("primary", "wrist"))
    parser.add_argument("--size", type=int, nargs=2, default=(640, 480), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--samples", type=int, default=RenderSpec().samples)
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    world = World(
        RenderSpec(options.size[0], options.size[1], samples=options.samples), WorldConfig(robot=options.robot)
    )
    lockstep = Lockstep(world, cameras=options.camera)
    for family in options.families:
        report = evaluate(lockstep, family, options.episodes, options.first_seed)
        sys.stdout.write(json.dumps(report.summary()) + "\n")
        sys.stdout.flush()
    world.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

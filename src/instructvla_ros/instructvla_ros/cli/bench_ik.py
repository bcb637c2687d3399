"""instructvla bench ik: inverse kinematics of every known arm on random reachable poses, judged by MuJoCo's forward
kinematics of the vendors' descriptions."""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass

import numpy as np

from instructvla_ros.cli.independent_kinematics import DESCRIPTIONS, IndependentKinematics
from instructvla_ros.control.arm import ArmModel
from instructvla_ros.control.rotations import rotation_angle

_POSITION_M, _ROTATION_RAD = 1e-4, math.radians(0.1)
_SOLVED_BAR, _MEDIAN_BAR_MS = 0.999, 1.0


@dataclass(frozen=True)
class IkReport:
    """Figures of one arm. Errors are the worst among the solved poses, times those of one call."""

    arm: str
    seed: str
    solved: float
    position_mm: float
    rotation_deg: float
    median_ms: float
    p99_ms: float

    def line(self) -> str:
        """For people."""
        return (
            f"{self.arm:8s} {self.seed:8s} solved {100 * self.solved:6.2f} %  within {self.position_mm:.1e} mm, "
            f"{self.rotation_deg:.1e} deg  median {self.median_ms:.2f} ms, p99 {self.p99_ms:.2f} ms"
        )


def measure(arm: ArmModel, poses: int, *, near: bool) -> IkReport:
    """Random postures within the limits give reachable poses; the seed is 0.1 rad off them, or the home posture.

    A pose counts as solved when the answer is within the joint limits and reaches it within 0.1 mm and 0.1 degrees.
    """
    rng, judge = np.random.default_rng(0), IndependentKinematics(arm.name)
    solved, worst_m, worst_rad, times = 0, 0.0, 0.0, np.empty(poses)
    for index in range(poses):
        posture = rng.uniform(arm.lower_rad, arm.upper_rad)
        rotation, position = judge.forward(posture)
        away = np.clip(posture + rng.normal(size=arm.joints) * 0.1, arm.lower_rad, arm.upper_rad)
        seed = away if near else arm.home_rad
        began_s = time.process_time()
        answer = arm.inverse(rotation, position, seed)
        times[index] = time.process_time() - began_s
        reached_rotation, reached_position = judge.forward(answer.q_rad)
        off_m = float(np.linalg.norm(reached_position - position))
        off_rad = rotation_angle(reached_rotation, rotation)
        inside = (arm.lower_rad <= answer.q_rad).all() and (answer.q_rad <= arm.upper_rad).all()
        if inside and off_m <= _POSITION_M and off_rad <= _ROTATION_RAD:
            solved, worst_m, worst_rad = solved + 1, max(worst_m, off_m), max(worst_rad, off_rad)
    median, p99 = (1e3 * np.percentile(times, (50, 99))).tolist()
    seed_name = "nearby" if near else "home"
    return IkReport(arm.name, seed_name, solved / poses, 1e3 * worst_m, math.degrees(worst_rad), median, p99)


def add_parser(subjects: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `bench ik`."""
    parser = subjects.add_parser("ik", help="inverse kinematics on random reachable poses")
    parser.add_argument("--arms", nargs="+", choices=sorted(DESCRIPTIONS), default=[], help="only these; default: all")
    parser.add_argument("--poses", type=int, default=10_000, metavar="N", help="poses for each arm and kind of seed")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; returns 0 if every arm with a closed form solves 99.9 % in a median of 1 ms at most."""
    from instructvla_ros.robots import arms

    missed = False
    chosen = arguments.arms or [name for name in arms() if name in DESCRIPTIONS]
    for arm in (arms()[name] for name in chosen):
        for near in (True, False):
            report = measure(arm, arguments.poses, near=near)
            print(report.line(), flush=True)
            met = report.solved >= _SOLVED_BAR and report.median_ms <= _MEDIAN_BAR_MS
            missed = missed or (arm.closed_form and not met)
    return int(missed)

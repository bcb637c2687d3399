"""The simulated Franka: its kinematics, trajectory controller, hand, modes, and the same tasks as a WidowX."""

from __future__ import annotations

import math
from collections.abc import Iterator

import mujoco
import numpy as np
import pytest

from instructvla_ros.control import FR3, PANDA
from instructvla_ros.control.interpolator import TrackerConfig
from instructvla_ros.control.trajectory import stream_points
from instructvla_sim import FAMILIES, RenderSpec, World, WorldConfig
from instructvla_sim.benchmark import evaluate
from instructvla_sim.demonstrator import Demonstrator
from instructvla_sim.franka_arm import FrankaArm, RobotMode
from instructvla_sim.joint_trajectory_controller import JointTrajectoryController, Knot
from instructvla_sim.lockstep import Lockstep
from instructvla_sim.nodes.live_world import LiveWorld, Pacer

SMALL = RenderSpec(width=160, height=120, samples=0)
NAMES = FR3.joint_names


@pytest.fixture(scope="module")
def shared() -> Iterator[World]:
    world = World(SMALL, WorldConfig(robot="fr3"))
    yield world
    world.close()


@pytest.fixture
def franka(shared: World) -> World:
    shared.reset(0)
    return shared


@pytest.mark.parametrize("name", ["fr3", "panda"])
def test_the_models_gripper_is_where_the_controllers_kinematics_say(name: str) -> None:
    world = World(SMALL, WorldConfig(robot=name))
    arm = {"fr3": FR3, "panda": PANDA}[name]
    rng = np.random.default_rng(0)
    for _ in range(20):
        q = rng.uniform(arm.lower_rad, arm.upper_rad)
        world.data.qpos[:7] = q
        mujoco.mj_kinematics(world.model, world.data)
        (rotation, position), (seen_rotation, seen_position) = arm.forward(q), world.observer.ee()
        np.testing.assert_allclose(seen_position - world.robot.base_m, position, atol=1e-6)
        np.testing.assert_allclose(seen_rotation, rotation, atol=1e-6)
    np.testing.assert_allclose(world.model.jnt_range[:7], np.column_stack([arm.lower_rad, arm.upper_rad]))
    assert world.arm.joint_state().names[0] == f"{name}_joint1"
    assert world.arm.joint_state().names[-1] == f"{name}_finger_joint2"
    world.close()


def test_the_scene_of_a_seed_is_the_same_as_with_a_widowx(franka: World, world: World) -> None:
    for seed in range(4):
        assert franka.reset(seed).task == world.reset(seed).task
        for here, there in zip(franka.scene.objects, world.scene.objects, strict=True):
            assert here.visible == there.visible
            if here.visible:
                assert here.position_m == pytest.approx(there.position_m, abs=2e-3)


def test_the_gripper_starts_where_a_widowxs_would(franka: World, world: World) -> None:
    franka.reset(5)
    world.reset(5)
    np.testing.assert_allclose(franka.observer.ee()[1], world.observer.ee()[1], atol=5e-3)
    assert franka.gripper_opening > 0.95


@pytest.mark.parametrize("family", FAMILIES)
def test_the_demonstrator_solves_every_family(franka: World, family: str) -> None:
    report = evaluate(Lockstep(franka, cameras=()), family, 2, 0)
    assert report.successes == 2, report.failed_seeds


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fr3", "panda"])
def test_the_demonstrator_solves_95_of_100_episodes(name: str) -> None:
    world = World(SMALL, WorldConfig(robot=name))
    reports = [evaluate(Lockstep(world, cameras=()), family, 25, 200) for family in FAMILIES]
    assert sum(r.successes for r in reports) >= 95, [r.summary() for r in reports]
    world.close()


def test_a_policy_step_moves_the_gripper_by_its_delta(franka: World) -> None:
    lockstep = Lockstep(franka, cameras=())
    lockstep.start(2)
    before = franka.observer.ee()[1].copy()
    lockstep.step(np.array([0.02, 0.01, -0.01, 0, 0, 0.1, 1.0]))
    for _ in range(3):
        lockstep.step(np.array([0, 0, 0, 0, 0, 0, 1.0]))
    assert franka.observer.ee()[1] - before == pytest.approx([0.02, 0.01, -0.01], abs=2e-3)
    state = lockstep.observe().state
    assert state[:3] == pytest.approx(franka.observer.ee()[1] - franka.robot.base_m, abs=1e-4)


def test_a_fork_has_the_same_future(franka: World) -> None:
    lockstep, expert = Lockstep(franka, cameras=()), Demonstrator(franka)
    lockstep.start(31, ["place"])
    lockstep.run(lambda _: expert.act().action, 6)
    fork = lockstep.fork()
    finals = []
    for _ in range(2):
        lockstep.resume(fork)
        lockstep.run(lambda _: expert.act().action, 6)
        finals.append(franka.data.qpos.copy())
    np.testing.assert_array_equal(*finals)


# The trajectory controller.


def controller() -> JointTrajectoryController:
    made = JointTrajectoryController(("a", "b"))
    made.reset(np.zeros(2))
    return made


def test_a_trajectory_is_followed_through_its_points_with_their_velocities() -> None:
    made = controller()
    knots = [Knot(0.5, np.array([0.1, 0.0]), np.array([0.3, 0.0])), Knot(1.0, np.array([0.2, 0.4]), np.zeros(2))]
    assert made.accept(("a", "b"), knots, 10.0) == ""
    position, velocity = made.sample(10.5)
    np.testing.assert_allclose(position, [0.1, 0.0], atol=1e-12)
    np.testing.assert_allclose(velocity, [0.3, 0.0], atol=1e-12)
    np.testing.assert_allclose(made.sample(12.0)[0], [0.2, 0.4])
    np.testing.assert_allclose(made.sample(12.0)[1], 0.0)


def test_a_replacement_takes_over_position_and_velocity_without_a_jump() -> None:
    made = controller()
    made.accept(("a", "b"), [Knot(1.0, np.ones(2), np.zeros(2))], 0.0)
    before = made.sample(0.4)
    made.accept(("b", "a"), [Knot(1.0, np.array([-1.0, 0.5]), np.zeros(2))], 0.4)
    after = made.sample(0.4)
    np.testing.assert_allclose(after[0], before[0])
    np.testing.assert_allclose(after[1], before[1])
    np.testing.assert_allclose(made.sample(2.0)[0], [0.5, -1.0], err_msg="joints are mapped by name")


def test_a_trajectory_that_leads_on_from_the_measured_state_is_halfway_when_the_next_one_comes() -> None:
    made, measured = controller(), (np.array([-0.1, 0.0]), np.zeros(2))
    knots = [Knot(0.04, np.zeros(2), np.zeros(2)), Knot(0.12, np.zeros(2), np.zeros(2))]
    made.accept(("a", "b"), knots, 10.0, begin=measured)
    np.testing.assert_allclose(made.sample(10.0)[0], measured[0])
    np.testing.assert_allclose(made.sample(10.02)[0], 0.5 * measured[0])


def test_a_stream_of_trajectories_that_lead_on_from_the_measured_state_sets_the_reference_back_each_time(
    franka: World,
) -> None:
    speed, set_back_rad = np.array([0.3, 0, 0, 0, 0, 0, 0]), {}
    for from_measured in (False, True):
        franka.reset(0)
        arm, set_back_rad[from_measured] = arm_of(franka), []
        start = arm.joint_state().positions[:7]
        for tick in range(25):
            goal = start + speed * (0.02 * tick + TrackerConfig().lead_s)
            points = stream_points(goal, speed, TrackerConfig(), FR3.acceleration_rad_s2)
            knots = [Knot(p.time_s, p.positions_rad, p.velocities_rad_s) for p in points]
            before = arm.desired[0]
            assert arm.follow(NAMES, knots, from_measured=from_measured) == ""
            set_back_rad[from_measured].append((before - arm.desired[0])[0])
            franka.step(0.02)
    np.testing.assert_allclose(set_back_rad[False], 0.0, atol=1e-12)
    assert max(set_back_rad[True]) > 0.002, set_back_rad[True]


@pytest.mark.parametrize(
    ("names", "knots", "why"),
    [
        (("a",), [Knot(1.0, np.zeros(1))], "expected"),
        (("a", "b"), [], "none"),
        (("a", "b"), [Knot(1.0, np.zeros(3))], "size"),
        (("a", "b"), [Knot(1.0, np.zeros(2)), Knot(0.5, np.zeros(2))], "increase"),
        (("a", "b"), [Knot(1.0, np.zeros(2), np.ones(2))], "not zero"),
    ],
)
def test_a_trajectory_that_the_controller_refuses_changes_nothing(names: tuple, knots: list, why: str) -> None:
    made = controller()
    assert why in made.accept(names, knots, 0.0)
    np.testing.assert_array_equal(made.sample(5.0)[0], np.zeros(2))


def test_a_trajectory_of_the_past_is_refused() -> None:
    assert "past" in controller().accept(("a", "b"), [Knot(0.1, np.ones(2))], 5.0, start_s=4.0)


# The hand.


def settle(world: World, seconds: float) -> None:
    for _ in range(round(seconds / 0.02)):
        world.step(0.02)


def test_the_hand_moves_at_the_asked_speed_and_says_when_it_is_there(franka: World) -> None:
    hand = franka.arm.hand
    assert hand.move(0.02, 0.05) == ""
    settle(franka, 0.6)
    assert not hand.motion.done
    assert 2 * franka.arm.finger_m == pytest.approx(0.05, abs=0.006)
    settle(franka, 1.0)
    assert hand.motion.done and hand.motion.success
    assert 2 * franka.arm.finger_m == pytest.approx(0.02, abs=2e-3)


def test_a_grasp_of_nothing_fails_and_one_within_epsilon_succeeds(franka: World) -> None:
    hand = franka.arm.hand
    hand.grasp(0.03, 0.1, 20.0, 0.005, 0.005)
    settle(franka, 1.5)
    assert hand.motion.done
    success = 0.025 <= 2 * franka.arm.finger_m <= 0.035
    assert hand.motion.success == success
    hand.grasp(0.06, 0.1, 20.0, 0.001, 0.001)
    assert hand.grasp(0.2, 0.1, 20.0, 0.0, 0.0) != "", "wider than the hand"
    assert hand.move(0.02, 0.5) != "", "faster than the hand"


# Modes.


def arm_of(world: World) -> FrankaArm:
    assert isinstance(world.arm, FrankaArm)
    return world.arm


@pytest.mark.parametrize("mode", [RobotMode.REFLEX, RobotMode.USER_STOPPED, RobotMode.GUIDING, RobotMode.IDLE])
def test_outside_of_move_the_arm_holds_and_refuses_trajectories(franka: World, mode: RobotMode) -> None:
    arm = arm_of(franka)
    arm.enter(mode, "cartesian_reflex")
    before = arm.joint_state().positions[:7]
    assert "not active" in arm.follow(NAMES, [Knot(0.5, before + 0.2, np.zeros(7))])
    settle(franka, 0.6)
    np.testing.assert_allclose(arm.joint_state().positions[:7], before, atol=5e-3)


def test_recovery_leads_from_the_reflex_to_idle_and_only_activation_back_to_move(franka: World) -> None:
    arm = arm_of(franka)
    arm.enter(RobotMode.REFLEX, "joint_reflex")
    assert not arm.activate_controller()
    assert arm.recover() and arm.mode is RobotMode.IDLE and not arm.errors
    assert arm.last_motion_errors == {"joint_reflex"}
    assert not arm.controller_active
    assert arm.activate_controller() and arm.mode is RobotMode.MOVE


def test_the_user_stop_cannot_be_recovered_from_by_software(franka: World) -> None:
    arm = arm_of(franka)
    arm.enter(RobotMode.USER_STOPPED)
    assert not arm.recover()
    assert arm.mode is RobotMode.USER_STOPPED


@pytest.mark.parametrize(("mode", "errors"), [(RobotMode.USER_STOPPED, ()), (RobotMode.REFLEX, ("joint_reflex",))])
def test_a_new_scene_releases_neither_user_stop_nor_reflex(
    franka: World, mode: RobotMode, errors: tuple[str, ...]
) -> None:
    arm = arm_of(franka)
    arm.enter(mode, *errors)
    LiveWorld(franka, Pacer(0.01, 0.05), lambda: 0.0).reset(3, ("pick",), None, None)
    assert franka.scene.seed == 3
    assert (arm.mode, arm.errors, arm.controller_active) == (mode, set(errors), False)
    assert not arm.activate_controller()
    placed = arm.joint_state().positions[:7]
    settle(franka, 0.3)
    np.testing.assert_allclose(arm.joint_state().positions[:7], placed, atol=5e-3)


def test_a_goal_that_is_not_a_number_ends_in_a_reflex_and_not_in_a_crash(franka: World) -> None:
    arm = arm_of(franka)
    assert arm.follow(NAMES, [Knot(0.5, np.full(7, math.nan))]) == "", "the controller does not look"
    settle(franka, 0.6)
    assert arm.mode is RobotMode.REFLEX
    assert np.isfinite(franka.data.qpos).all()


def test_pressing_on_the_table_ends_in_a_reflex(franka: World) -> None:
    arm = arm_of(franka)
    q = arm.joint_state().positions[:7]
    rotation, position = FR3.forward(q)
    below = FR3.inverse(rotation, position - [0, 0, position[2] + 0.12], q)
    arm.follow(NAMES, [Knot(1.5, below.q_rad, np.zeros(7))])
    settle(franka, 2.0)
    assert arm.mode is RobotMode.REFLEX
    assert arm.errors <= {"joint_reflex"} and arm.errors


def test_both_cameras_see_the_bench(franka: World) -> None:
    for camera in ("primary", "wrist"):
        image = franka.render(camera)
        assert image.std() > 15, f"{camera} sees next to nothing"
        assert (franka.segment(camera) >= 0).any(), f"{camera} sees no object"


def test_an_unknown_robot_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="fr3"):
        World(SMALL, WorldConfig(robot="ur5"))

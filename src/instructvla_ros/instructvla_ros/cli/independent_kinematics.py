"""Forward kinematics by MuJoCo from the vendors' robot descriptions, by which `instructvla bench ik` and tests judge.

Nothing here uses the project's own kinematics, so an error there cannot hide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

_INERTIAL = '<inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/>'


@dataclass(frozen=True)
class Description:
    """`<origin>` (xyz in m, rpy in rad) and axis of every joint as the URDF gives them; then the fixed frames to the
    tool, in which the policy's end-effector frame (x out of the gripper, y across the fingers) is `renamed`."""

    joints: tuple[tuple[str, str, str], ...]
    tool: tuple[tuple[str, str], ...]
    renamed: tuple[tuple[float, ...], ...]

    def xml(self) -> str:
        """As a MuJoCo model whose site is the tool."""
        opened = [f'<body pos="{p}" euler="{e}">{_INERTIAL}<joint axis="{axis}"/>' for p, e, axis in self.joints]
        opened += [f'<body pos="{p}" euler="{e}">' for p, e in self.tool]
        bodies = f'{"".join(opened)}<site name="tool"/>{"</body>" * len(opened)}'
        compiler = '<compiler angle="radian" eulerseq="XYZ"/>'
        return f"<mujoco>{compiler}<worldbody>{bodies}</worldbody></mujoco>"


_Z, _QUARTER, _HALF = "0 0 1", "1.5707963267948966", "3.141592653589793"
_NONE = "0 0 0"
_FRANKA = Description(
    joints=(
        ("0 0 0.333", _NONE, _Z),
        (_NONE, f"-{_QUARTER} 0 0", _Z),
        ("0 -0.316 0", f"{_QUARTER} 0 0", _Z),
        ("0.0825 0 0", f"{_QUARTER} 0 0", _Z),
        ("-0.0825 0.384 0", f"-{_QUARTER} 0 0", _Z),
        (_NONE, f"{_QUARTER} 0 0", _Z),
        ("0.088 0 0", f"{_QUARTER} 0 0", _Z),
    ),
    tool=(("0 0 0.107", _NONE), (_NONE, "0 0 -0.7853981633974483"), ("0 0 0.1034", _NONE)),  # flange, hand, TCP
    renamed=((0.0, 0.0, 1.0), (0.0, -1.0, 0.0), (1.0, 0.0, 0.0)),
)
DESCRIPTIONS: Mapping[str, Description] = {
    "wx250s": Description(
        joints=(
            ("0 0 0.11065", _NONE, _Z),
            (_NONE, _NONE, "0 1 0"),
            ("0.04975 0 0.25", _NONE, "0 1 0"),
            ("0.175 0 0", _NONE, "1 0 0"),
            ("0.075 0 0", _NONE, "0 1 0"),
            (_NONE, _NONE, "1 0 0"),
        ),
        tool=(("0.158575 0 0", _NONE),),
        renamed=((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    ),
    "fr3": _FRANKA,
    "panda": _FRANKA,
    "ur5e": Description(
        joints=(
            ("0 0 0.1625", f"0 0 {_HALF}", _Z),
            (_NONE, f"{_QUARTER} 0 0", _Z),
            ("-0.425 0 0", _NONE, _Z),
            ("-0.3922 0 0.1333", _NONE, _Z),
            ("0 -0.0997 0", f"{_QUARTER} 0 0", _Z),
            ("0 0.0996 0", f"{_QUARTER} {_HALF} {_HALF}", _Z),
        ),
        tool=(("0 0 0.15", f"0 0 -{_QUARTER}"),),
        renamed=((0.0, 0.0, 1.0), (0.0, -1.0, 0.0), (1.0, 0.0, 0.0)),
    ),
}
"""By the arm's name."""


class IndependentKinematics:
    """Of the named arm. Raises ImportError where MuJoCo is not installed."""

    def __init__(self, arm: str) -> None:
        import mujoco

        self._kinematics = mujoco.mj_kinematics
        description = DESCRIPTIONS[arm]
        self._renamed = np.array(description.renamed)
        self._model = mujoco.MjModel.from_xml_string(description.xml())
        self._data = mujoco.MjData(self._model)

    def forward(self, q_rad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rotation (3, 3) and position (3,) in m of the end effector in the base frame."""
        self._data.qpos[:] = q_rad
        self._kinematics(self._model, self._data)
        site = self._data.site("tool")
        return site.xmat.reshape(3, 3) @ self._renamed, site.xpos.copy()

"""The Franka FR3 and Panda."""

from instructvla_ros.control.franka import FR3, PANDA
from instructvla_ros.graph.franka import FRANKA

ARMS = {FR3.name: FR3, PANDA.name: PANDA}
GRAPH = FRANKA

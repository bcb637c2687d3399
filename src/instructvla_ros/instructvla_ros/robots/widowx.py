"""The Interbotix WidowX-250s."""

from instructvla_ros.control.wx250s import WX250S
from instructvla_ros.graph.widowx import WIDOWX

ARMS = {WX250S.name: WX250S}
GRAPH = WIDOWX

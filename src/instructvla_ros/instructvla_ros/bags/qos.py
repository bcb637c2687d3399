"""Qualities of service between rclpy, bags and recorders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rclpy.qos import DurabilityPolicy, HistoryPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

DEPTH = 500
"""Messages that DDS keeps for the recorder while it is busy: five seconds of joint states, eight of two cameras."""


def listening_profile(offered: Sequence[QoSProfile]) -> QoSProfile:
    """A profile that hears all publishers of a topic, as `ros2 bag record` chooses it: reliable, and latched, only
    where every publisher is."""
    reliable = bool(offered) and all(p.reliability == ReliabilityPolicy.RELIABLE for p in offered)
    latched = bool(offered) and all(p.durability == DurabilityPolicy.TRANSIENT_LOCAL for p in offered)
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=DEPTH,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def to_bag(profile: Any) -> Qos:
    """A profile as a bag stores it. DDS does not tell the history of others; rosbag2 writes it as unknown, too."""
    known = profile.history in (HistoryPolicy.KEEP_LAST, HistoryPolicy.KEEP_ALL)
    return Qos(
        QosHistory(int(profile.history)) if known else QosHistory.UNKNOWN,
        int(profile.depth),
        QosReliability(int(profile.reliability)),
        QosDurability(int(profile.durability)),
        _time(profile.deadline),
        _time(profile.lifespan),
        QosLiveliness(int(profile.liveliness) or int(LivelinessPolicy.AUTOMATIC)),
        _time(profile.liveliness_lease_duration),
        bool(profile.avoid_ros_namespace_conventions),
    )


def _time(duration: Any) -> QosTime:
    seconds, nanoseconds = divmod(int(duration.nanoseconds), 10**9)
    return QosTime(seconds, nanoseconds)

"""Environment variables that every process of the project should share; what the user has set stays."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

DEFAULTS: Mapping[str, str] = {
    # Full camera images at 30 Hz over shared memory or TCP instead of fragmented UDP.
    "FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA?max_msg_size=2MB&sockets_size=4MB&non_blocking=true",
    # An arm must not listen to strangers on the network unless somebody wants it to.
    "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    "ROS_DOMAIN_ID": "0",
    # Log lines appear when they are written, also into a pipe.
    "PYTHONUNBUFFERED": "1",
    "RCUTILS_LOGGING_BUFFERED_STREAM": "0",
}


def apply_defaults(environment: MutableMapping[str, str]) -> MutableMapping[str, str]:
    """Set what is not set; returns the same mapping."""
    for name, value in DEFAULTS.items():
        environment.setdefault(name, value)
    return environment

"""Environment variables that every process of the project should share; what the user has set stays."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

from instructvla_ros.graph import files

DEFAULTS: Mapping[str, str] = {
    # An arm must not listen to strangers on the network unless somebody wants it to.
    "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    "ROS_DOMAIN_ID": "0",
    # Log lines appear when they are written, also into a pipe.
    "PYTHONUNBUFFERED": "1",
    "RCUTILS_LOGGING_BUFFERED_STREAM": "0",
}


PROFILES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
"""Either names Fast DDS's profiles, depending on its version."""


def use_camera_profile(environment: MutableMapping[str, str]) -> None:
    """Let this process publish whole images over shared memory. Call before the first node; the user's choice stays."""
    if not any(name in environment for name in PROFILES):
        environment[PROFILES[0]] = str(files.params_file("fastdds_cameras.xml"))


def apply_defaults(environment: MutableMapping[str, str]) -> MutableMapping[str, str]:
    """Set what is not set; returns the same mapping."""
    for name, value in DEFAULTS.items():
        environment.setdefault(name, value)
    return environment

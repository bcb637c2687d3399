# Source this, in bash or zsh, to use what tools/setup.sh has made: puts .venv first in PATH and, where ROS 2 is an
# installed one, sources it and our workspace. With ROS 2 from wheels, `source .venv/bin/activate` in a fresh shell does
# the same.
# shellcheck shell=bash

_instructvla_activate() {
    local file root shell=bash strict=no instructvla_ros_source instructvla_ros_prefix
    if [ -n "${BASH_VERSION:-}" ]; then
        file=${BASH_SOURCE[0]}
    elif [ -n "${ZSH_VERSION:-}" ]; then
        eval 'file=${(%):-%x}' shell=zsh # bash cannot read zsh's name for the file that is sourced
    else
        echo "tools/activate.sh: this shell cannot tell where the file lies; source it from bash or zsh" >&2
        return 1
    fi
    root=$(cd "$(dirname "$file")/.." && pwd)
    if [ ! -f "$root/.venv/ros_source.sh" ]; then
        echo "tools/activate.sh: nothing is set up yet; run tools/setup.sh first" >&2
        return 1
    fi
    case $- in *u*) strict=yes ;; esac
    set +u # ROS's own scripts read variables that may be unset
    . "$root/.venv/ros_source.sh"
    if [ "$instructvla_ros_source" = system ] && [ ! -f "$root/ros2_ws/install/setup.$shell" ]; then
        echo "tools/activate.sh: the workspace ros2_ws is not built; run tools/setup.sh first" >&2
        if [ "$strict" = yes ]; then set -u; fi
        return 1
    fi
    if [ -n "$_ROS_WHEELS_BOOTSTRAP_COMPLETE" ]; then # inherited from another environment's Python
        unset _ROS_WHEELS_BOOTSTRAP_COMPLETE LD_LIBRARY_PATH
    fi
    . "$root/.venv/bin/activate"
    if [ "$instructvla_ros_source" = system ]; then
        . "$instructvla_ros_prefix/setup.$shell"
        . "$root/ros2_ws/install/setup.$shell"
    else
        unset AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH PYTHONPATH
    fi
    if [ "$strict" = yes ]; then set -u; fi
}
_instructvla_activate

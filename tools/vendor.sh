#!/usr/bin/env bash
# Fetches a robot's genuine drivers into ros2_ws/src/vendor, for use with an installed ROS 2.
#   tools/vendor.sh widowx|franka
# Stand-in interfaces whose genuine package is then in the workspace are switched off (COLCON_IGNORE).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/lib/interfaces.sh

robot=${1:-}
if [ ! -f "ros2_ws/$robot.repos" ]; then
    echo "tools/vendor.sh: found '$robot', expected widowx or franka" >&2
    exit 2
fi
if ! command -v vcs >/dev/null 2>&1; then
    echo "tools/vendor.sh: the tool vcs is missing; install the package python3-vcstool" >&2
    exit 1
fi

vendor=ros2_ws/src/vendor
mkdir -p "$vendor"
vcs import --recursive --skip-existing "$vendor" <"ros2_ws/$robot.repos"

if [ "$robot" = widowx ]; then # Interbotix switches off what not every robot needs: the arms need these
    rm -f "$vendor/interbotix_ros_core/interbotix_ros_xseries/COLCON_IGNORE" \
        "$vendor/interbotix_ros_manipulators/interbotix_ros_xsarms/COLCON_IGNORE" \
        "$vendor/interbotix_ros_toolboxes/interbotix_xs_toolbox/COLCON_IGNORE" \
        "$vendor/interbotix_ros_toolboxes/interbotix_common_toolbox/COLCON_IGNORE"
fi

switch_stand_ins
echo "next: cd ros2_ws && rosdep install --from-paths src --ignore-src -y && colcon build --symlink-install"

#!/usr/bin/env bash
# Makes everything that the project needs in .venv: system packages, Python packages, ROS 2 (from wheels, or the
# one in /opt/ros/jazzy), our messages and packages. Does only what has changed since it last ran.
#   tools/setup.sh [--dev]      --dev: with the tools for tests
# Variables: PYTHON, INSTRUCTVLA_ROS=auto|system|wheels, INSTRUCTVLA_ROS_PREFIX, INSTRUCTVLA_TORCH_INDEX.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
venv=$root/.venv

. tools/lib/common.sh
. tools/lib/system_packages.sh
. tools/lib/python_packages.sh
. tools/lib/interfaces.sh

dev=no
case ${1:-} in
'') ;;
--dev) dev=yes ;;
*) die "unknown option '$1'; expected nothing or --dev." ;;
esac

if [ "$(uname -s)" != Linux ]; then die "this is $(uname -s); the project runs on Linux."; fi
forget_inherited_wheels
choose_ros
if [ "$ros_source" = wheels ] && [ "$(uname -m)" != x86_64 ]; then
    die "there are no ROS 2 wheels for $(uname -m), only for x86_64. Install ROS 2 Jazzy from packages."
fi
choose_python

# Two set-ups at once wait for each other.
if command -v flock >/dev/null 2>&1; then
    exec 9>"$root/.setup.lock"
    flock -n 9 || {
        say "another set-up is running; waiting for it ..."
        flock 9
    }
fi

export PIP_DISABLE_PIP_VERSION_CHECK=1
salt="$ros_source $ros_prefix $(identity_of "$python") $root"

if ! "$venv/bin/python" -c '' >/dev/null 2>&1; then rm -rf "$venv/.stamps"; fi
step system "$(hash_of tools/lib/system_packages.sh)" "System packages" install_system_packages
step environment "$(hash_of tools/lib/python_packages.sh)" "Virtual environment" make_environment
printf 'instructvla_ros_source=%q\ninstructvla_ros_prefix=%q\n' "$ros_source" "$ros_prefix" >"$venv/ros_source.sh"
step torch "$(hash_of requirements/torch.txt tools/lib/python_packages.sh)" "PyTorch" install_torch
step requirements "$(hash_of requirements/runtime.txt requirements/constraints.txt requirements/ros-*.txt \
    requirements/colcon.txt tools/lib/python_packages.sh)" "Python packages" install_requirements
if [ "$dev" = yes ]; then
    step dev "$(hash_of requirements/dev.txt requirements/constraints.txt)" "Test tools" install_dev_requirements
fi
if [ "$ros_source" = system ]; then switch_stand_ins >&2; fi
mapfile -t interface_folders < <(workspace_interfaces)
interfaces=$(hash_of src/instructvla_msgs ros2_ws/src/interfaces "${interface_folders[@]}" requirements/ros-*.txt)
metadata=$(hash_of_packages)
if [ "$ros_source" = wheels ]; then
    step interfaces "$interfaces" "ROS 2 interfaces" install_interfaces
    step packages "$metadata" "Our packages" install_own_packages
else
    run_again_without workspace ros2_ws/build ros2_ws/install/setup.bash # Python packages are linked from build
    step workspace "$interfaces $metadata" "ROS 2 workspace" build_workspace
fi

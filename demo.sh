#!/usr/bin/env bash
# Sets everything up, then runs the whole system once: simulated robot, ROS 2 graph, policy, instruction, outcome.
#   ./demo.sh [--instruction "put the apple on the plate"] [--robot widowx] [--seed N] [--keep]
# Leaves a video, a contact sheet and a bag in demo/ of the checkout, or in the folder given with --output, relative to
# where it is called. Exits with 0 only if the simulator says that the task is done.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
"$root/tools/setup.sh"
. "$root/tools/activate.sh"
exec python -P -m instructvla_ros.cli demo "$@" # -P: nothing is imported from the caller's folder

#!/usr/bin/env bash
# Sets everything up, then runs the whole system once: simulated robot, ROS 2 graph, policy, instruction, outcome.
#   ./demo.sh [--instruction "put the apple on the plate"] [--robot widowx] [--seed N] [--keep]
# Leaves a video, a contact sheet and a bag in demo/. Exits with 0 only if the simulator says that the task is done.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
tools/setup.sh
. tools/activate.sh
exec python -m instructvla_ros.cli demo "$@"

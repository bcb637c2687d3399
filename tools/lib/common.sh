# Helpers of the set-up scripts. Sourced, never run.
# shellcheck shell=bash

say() { printf '[setup] %s\n' "$*" >&2; }

die() {
    printf '[setup] error: %s\n' "$1" >&2
    shift
    local line
    for line in "$@"; do printf '[setup]        %s\n' "$line" >&2; done
    exit 1
}

# One hash over the names and contents of the given files and folders (absent ones count as empty), and over $salt.
# Checkpoints, which are large, are left out: where they are installed in place, they are only linked.
hash_of() {
    {
        printf '%s\n' "${salt:-}"
        { find -L "$@" -type f ! -name '*.pyc' ! -path '*/build/*' ! -path '*/test/*' ! -path '*.egg-info/*' \
            ! -path '*/checkpoints/*' -print0 2>/dev/null || true; } | LC_ALL=C sort -z | xargs -0 -r sha256sum
    } | sha256sum | cut -d ' ' -f 1
}

# step NAME HASH "what it does" COMMAND...: runs the command unless it last succeeded with this hash.
step() {
    local hash=$2 title=$3 stamp="$venv/.stamps/$1" began
    shift 3
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$hash" ]; then return 0; fi
    say "$title ..."
    began=$SECONDS
    "$@"
    mkdir -p "$venv/.stamps"
    printf '%s\n' "$hash" >"$stamp"
    say "$title: done in $((SECONDS - began)) s"
}

# run_again_without STEP FILE...: forgets that a step has run where something it makes is gone.
run_again_without() {
    local stamp="$venv/.stamps/$1" file
    shift
    for file in "$@"; do
        if [ ! -e "$file" ]; then rm -f "$stamp"; fi
    done
}

# A shell started from inside another environment's Python inherits that environment's ROS libraries.
forget_inherited_wheels() {
    if [ -n "${_ROS_WHEELS_BOOTSTRAP_COMPLETE:-}" ]; then
        unset _ROS_WHEELS_BOOTSTRAP_COMPLETE LD_LIBRARY_PATH
    fi
}

# Which ROS 2 serves: sets ros_source to "system" or "wheels", and ros_prefix.
# INSTRUCTVLA_ROS=auto|system|wheels and INSTRUCTVLA_ROS_PREFIX override.
choose_ros() {
    ros_prefix=${INSTRUCTVLA_ROS_PREFIX:-/opt/ros/jazzy}
    ros_source=${INSTRUCTVLA_ROS:-auto}
    case $ros_source in
    auto) if [ -f "$ros_prefix/setup.bash" ]; then ros_source=system; else ros_source=wheels; fi ;;
    system)
        [ -f "$ros_prefix/setup.bash" ] ||
            die "INSTRUCTVLA_ROS=system, but $ros_prefix/setup.bash does not exist." \
                "Install ROS 2 Jazzy, or name its folder with INSTRUCTVLA_ROS_PREFIX."
        ;;
    wheels) ;;
    *) die "INSTRUCTVLA_ROS is '$ros_source'; expected auto, system or wheels." ;;
    esac
    local wheel
    wheel=$(find "$venv/lib" -maxdepth 3 -iname 'ros_rclpy-*.dist-info' -print -quit 2>/dev/null || true)
    if [ "$ros_source" = system ] && [ -n "$wheel" ]; then
        die "$venv holds ROS 2 from wheels, and ROS 2 is installed in $ros_prefix too; the two must not mix." \
            "Remove the folder .venv and start again to use $ros_prefix, or set INSTRUCTVLA_ROS=wheels."
    fi
    if [ "$ros_source" = wheels ]; then refuse_sourced_ros; fi
}

# With wheels, a sourced ROS 2 would shadow parts of them. Our own workspace alone is harmless: forget it.
refuse_sourced_ros() {
    local prefix
    local IFS=:
    for prefix in ${AMENT_PREFIX_PATH:-}; do
        if [ -d "$prefix/share/rclpy" ] && [ "$prefix" != "$venv" ]; then
            die "this shell has sourced the ROS 2 in $prefix, and the set-up would use ROS 2 from wheels." \
                "The two must not mix. Start from a shell that has not sourced it, or, if it is a Jazzy," \
                "use it with INSTRUCTVLA_ROS=system INSTRUCTVLA_ROS_PREFIX=$prefix."
        fi
    done
    unset AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH PYTHONPATH
}

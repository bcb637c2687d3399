# Stand-in interfaces beside the genuine packages, fetched or installed. Sourced in the repository's root, never run.
# shellcheck shell=bash

# The folder of a genuine package that tools/vendor.sh has fetched; nothing where there is none.
genuine_package() {
    local file
    if [ ! -d ros2_ws/src/vendor ]; then return 0; fi
    file=$(find ros2_ws/src/vendor -type f -path "*/$1/package.xml" -print -quit)
    if [ -n "$file" ]; then dirname "$file"; fi
}

# Whether the genuine package is installed with ROS 2, as apt does it.
genuine_is_installed() {
    local share=${ros_prefix:-${INSTRUCTVLA_ROS_PREFIX:-/opt/ros/jazzy}}/share/$1
    [ -f "$share/package.xml" ] && [ ! -f "$share/stand_in.xml" ]
}

# Lets colcon leave out exactly those stand-ins whose genuine package is there, and says what it changed.
switch_stand_ins() {
    local stand_in name mark there said
    for stand_in in ros2_ws/src/interfaces/*/; do
        name=$(basename "$stand_in") mark=${stand_in}COLCON_IGNORE there='' said=''
        if [ -n "$(genuine_package "$name")" ]; then
            there="in the workspace"
        elif genuine_is_installed "$name"; then
            there="installed"
        fi
        if [ -n "$there" ]; then
            if [ ! -f "$mark" ]; then said="the genuine package is $there; the stand-in is switched off"; fi
            touch "$mark"
        elif [ -f "$mark" ]; then
            said="there is no genuine package any more; the stand-in is switched on"
            rm "$mark"
        fi
        if [ -n "$said" ]; then
            printf '%s\n' "$name: $said"
            # An installed stand-in would shadow the genuine package, and CMake refuses to build one from the other's
            # sources.
            rm -rf "ros2_ws/build/$name" "ros2_ws/install/$name"
        fi
    done
}

# Folders of the interfaces to build for our packages, one a line: the genuine where fetched, none where it is
# installed, else the stand-ins.
workspace_interfaces() {
    local stand_in name genuine
    for stand_in in ros2_ws/src/interfaces/*/; do
        name=$(basename "$stand_in")
        genuine=$(genuine_package "$name")
        if [ -n "$genuine" ]; then
            printf '%s\n' "$genuine"
        elif ! genuine_is_installed "$name"; then
            printf '%s\n' "${stand_in%/}"
        fi
    done
}

# Stand-in interfaces beside the genuine packages of ros2_ws/src/vendor. Sourced in the repository's root, never run.
# shellcheck shell=bash

# The folder of a genuine package that tools/vendor.sh has fetched; nothing where there is none.
genuine_package() {
    local file
    if [ ! -d ros2_ws/src/vendor ]; then return 0; fi
    file=$(find ros2_ws/src/vendor -type f -path "*/$1/package.xml" -print -quit)
    if [ -n "$file" ]; then dirname "$file"; fi
}

# Lets colcon leave out exactly those stand-ins whose genuine package is in the workspace, and says what it changed.
switch_stand_ins() {
    local stand_in name mark said
    for stand_in in ros2_ws/src/interfaces/*/; do
        name=$(basename "$stand_in") mark=${stand_in}COLCON_IGNORE said=''
        if [ -n "$(genuine_package "$name")" ]; then
            if [ ! -f "$mark" ]; then said="the genuine package is in the workspace; the stand-in is switched off"; fi
            touch "$mark"
        elif [ -f "$mark" ]; then
            said="there is no genuine package any more; the stand-in is switched on"
            rm "$mark"
        fi
        if [ -n "$said" ]; then
            printf '%s\n' "$name: $said"
            rm -rf "ros2_ws/build/$name" "ros2_ws/install/$name" # CMake refuses to build one from the other's sources
        fi
    done
}

# Folders of the interfaces that our packages need, one a line: the genuine where fetched, else the stand-ins.
workspace_interfaces() {
    local stand_in genuine
    for stand_in in ros2_ws/src/interfaces/*/; do
        genuine=$(genuine_package "$(basename "$stand_in")")
        printf '%s\n' "${genuine:-${stand_in%/}}"
    done
}

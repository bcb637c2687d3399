# What the distribution must provide: a Python, a C++ compiler and software rendering. Sourced, never run.
# shellcheck shell=bash

readonly oldest_python=3.11 newest_python=3.13

python_fits() {
    command -v "$1" >/dev/null 2>&1 && "$1" - "$oldest_python" "$newest_python" <<'PY' >/dev/null 2>&1
import sys
low, high = (tuple(int(part) for part in text.split(".")) for text in sys.argv[1:])
sys.exit(not low <= sys.version_info[:2] <= high)
PY
}

version_of() { "$1" -c 'import platform; print(platform.python_version())' 2>/dev/null || true; }

# The Python that an environment was made with; of any other Python, itself.
base_of() { "$1" -c 'import sys; print(sys._base_executable)'; }

# Tells one Python from another, and is the same from inside an environment that was made with it.
identity_of() { "$1" -c 'import os, sys; print(sys.version, os.path.realpath(sys._base_executable))'; }

# Sets python to the first of these that fits; never to an environment's own, since ours may be active.
find_python() {
    local candidate
    for candidate in "$@"; do
        if python_fits "$candidate"; then
            python=$(base_of "$candidate")
            if python_fits "$python"; then return 0; fi
        fi
    done
    return 1
}

# Sets python: $PYTHON, else the one that .venv was made with, else python3, else the newest that fits; where there is
# no Python at all, the distribution's. An installed ROS 2 needs the system's own.
choose_python() {
    local candidates=(python3 python3.13 python3.12 python3.11)
    if [ -x "$venv/bin/python" ]; then candidates=("$venv/bin/python" "${candidates[@]}"); fi
    if [ "$ros_source" = system ]; then candidates=(/usr/bin/python3); fi
    if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
    if find_python "${candidates[@]}"; then return 0; fi
    if [ -z "${PYTHON:-}" ] && ! command -v python3 >/dev/null 2>&1 && command -v apt-get >/dev/null 2>&1; then
        python=python3
        install_system_packages
        if find_python "${candidates[@]}"; then return 0; fi
    fi
    die "no suitable Python: looked for ${candidates[*]}, need version $oldest_python to $newest_python." \
        "Install one (Debian 12, Ubuntu 24.04: apt-get install python3 python3-venv), or name it: PYTHON=/path/to/python."
}

can_load() { "$python" -c 'import ctypes, sys; ctypes.CDLL(sys.argv[1])' "$1" >/dev/null 2>&1; }

missing_system_packages() {
    "$python" -c '' >/dev/null 2>&1 || printf '%s\n' python3
    command -v g++ >/dev/null 2>&1 || printf '%s\n' g++
    "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 || printf '%s\n' python3-venv
    [ -e "$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))' 2>/dev/null)/Python.h" ] ||
        printf '%s\n' python3-dev
    local graphics=()
    can_load libEGL.so.1 || graphics+=(libegl1)
    can_load libOpenGL.so.0 || can_load libGL.so.1 || graphics+=(libopengl0 libgl1)
    if ! can_load libEGL_nvidia.so.0 && ! compgen -G '/usr/lib*/*/dri/*swrast_dri.so' >/dev/null &&
        ! compgen -G '/usr/lib*/dri/*swrast_dri.so' >/dev/null; then
        graphics+=(libgl1-mesa-dri)
    fi
    if [ ${#graphics[@]} -gt 0 ]; then printf '%s\n' "${graphics[@]}"; fi
}

# How a person runs this as root; a bare image or server has no sudo.
as_root() {
    if command -v sudo >/dev/null 2>&1; then printf "sudo sh -c '%s'" "$1"; else printf "su -c '%s'" "$1"; fi
}

install_system_packages() {
    local missing command
    mapfile -t missing < <(missing_system_packages)
    if [ ${#missing[@]} -eq 0 ]; then return 0; fi
    if ! command -v apt-get >/dev/null 2>&1; then
        die "missing system packages, by their Debian names: ${missing[*]}." \
            "There is no apt-get here: install their equivalents and start again."
    fi
    command="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
    say "installing system packages: ${missing[*]}"
    if [ "$(id -u)" -eq 0 ]; then
        DEBIAN_FRONTEND=noninteractive sh -c "$command" >&2 || die "apt-get failed (see above): $command"
    elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
        sudo -n env DEBIAN_FRONTEND=noninteractive sh -c "$command" >&2 || die "apt-get failed (see above): $command"
    else
        die "missing system packages, and no right to install them. Run this, then start again:" \
            "$(as_root "$command")"
    fi
    mapfile -t missing < <(missing_system_packages)
    [ ${#missing[@]} -eq 0 ] || die "still missing after installation: ${missing[*]}"
}

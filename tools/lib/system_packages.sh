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

# Sets python: $PYTHON, else python3, else the newest that fits. An installed ROS 2 needs the system's own. An
# environment that is there already is made anew only for a Python that somebody asked for.
choose_python() {
    local candidates=("${PYTHON:-python3}" python3.13 python3.12 python3.11) candidate
    if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
    if [ "$ros_source" = system ]; then candidates=("${PYTHON:-/usr/bin/python3}"); fi
    for candidate in "${candidates[@]}"; do
        if python_fits "$candidate"; then
            python=$candidate
            if [ -z "${PYTHON:-}" ] && [ "$ros_source" = wheels ]; then prefer_own_python; fi
            return 0
        fi
    done
    die "no suitable Python: looked for ${candidates[*]}, need version $oldest_python to $newest_python." \
        "Install one (Debian 12, Ubuntu 24.04: apt-get install python3 python3-venv), or name it: PYTHON=/path/to/python."
}

# The Python that .venv was made with, where it fits and the one found is of another version.
prefer_own_python() {
    local own
    if ! python_fits "$venv/bin/python" || [ "$(version_of "$python")" = "$(version_of "$venv/bin/python")" ]; then
        return 0
    fi
    own=$("$venv/bin/python" -c 'import sys; print(sys._base_executable)')
    if python_fits "$own"; then python=$own; fi
}

can_load() { "$python" -c 'import ctypes, sys; ctypes.CDLL(sys.argv[1])' "$1" >/dev/null 2>&1; }

missing_system_packages() {
    command -v g++ >/dev/null 2>&1 || printf '%s\n' g++
    "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 || printf '%s\n' python3-venv
    [ -e "$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] ||
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
            "sudo sh -c '$command'"
    fi
    mapfile -t missing < <(missing_system_packages)
    [ ${#missing[@]} -eq 0 ] || die "still missing after installation: ${missing[*]}"
}

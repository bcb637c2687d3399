# What pip installs into the environment. Sourced, never run.
# shellcheck shell=bash

# Our own packages, in the order of their dependencies; folders that hold a setup.py.
own_packages() {
    local folder
    for folder in src/instructvla_model src/instructvla_ros src/instructvla_sim training launch; do
        if [ -f "$folder/setup.py" ]; then printf '%s\n' "$folder"; fi
    done
}

# One hash over what an installation in place copies: the packages' metadata, from which scripts are made.
hash_of_packages() {
    local folder
    while read -r folder; do
        hash_of "$folder/setup.py" "$folder/setup.cfg" "$folder/package.xml" "$folder/resource"
    done < <(own_packages)
    hash_of launch
}

pip_install() {
    "$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-input "$@" ||
        die "pip could not install (see above): $*" \
            "Without network, give pip a folder of wheels: PIP_NO_INDEX=1 PIP_FIND_LINKS=/path/to/wheels."
}

make_environment() {
    local options=()
    if [ "$ros_source" = system ]; then options+=(--system-site-packages); fi
    if [ -e "$venv/bin/python" ] || [ -L "$venv/bin/python" ]; then # a link whose Python is gone does not "exist"
        if ! "$venv/bin/python" -c 'import pip' >/dev/null 2>&1; then
            options+=(--clear) # left half made, or its Python is gone
        elif [ "$(version_of "$python")" != "$(version_of "$venv/bin/python")" ]; then
            say "$venv has Python $(version_of "$venv/bin/python"); making it anew with $(version_of "$python") ($python)"
            options+=(--clear) # empties the folder, so that the later steps run again too
        fi
    fi
    "$python" -m venv "${options[@]}" "$venv" || die "could not make the virtual environment $venv (see above)."
}

# Without an NVIDIA GPU, the CPU build (0.2 GB) in place of the CUDA build (3 GB and more): from the indexes
# pip is configured for, else from PyTorch's own; where neither has it, the default build runs on a CPU too.
install_torch() {
    local torch index=${INSTRUCTVLA_TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
    torch=$(grep -E '^torch==' requirements/torch.txt)
    local pip=("$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-input
        -c requirements/constraints.txt)
    if ! nvidia-smi -L >/dev/null 2>&1; then
        "${pip[@]}" "$torch+cpu" 2>/dev/null && return 0
        "${pip[@]}" --retries 1 --timeout 20 --extra-index-url "$index" "$torch+cpu" 2>/dev/null && return 0
        say "no CPU build of $torch in pip's indexes or in $index; taking the default build"
    fi
    pip_install -c requirements/constraints.txt "$torch"
}

install_requirements() {
    local files=(-r requirements/runtime.txt)
    if [ "$ros_source" = wheels ]; then
        files+=(-r requirements/ros-runtime.txt -r requirements/ros-build.txt)
    else
        files+=(-r requirements/colcon.txt)
    fi
    pip_install -c requirements/constraints.txt "${files[@]}"
}

install_dev_requirements() { pip_install -c requirements/constraints.txt -r requirements/dev.txt; }

# A stand-in is built unless a genuine package of its name can be imported.
install_interfaces() {
    local folders=(./src/instructvla_msgs) folder name
    for folder in ros2_ws/src/interfaces/*/; do
        name=$(basename "$folder")
        if [ -f "$venv/share/$name/package.xml" ] && [ ! -f "$venv/share/$name/stand_in.xml" ]; then
            say "$name: the genuine package is installed; its stand-in is not built"
        else
            folders+=("./$folder")
        fi
    done
    PATH="$venv/bin:$PATH" pip_install --no-build-isolation --no-deps --force-reinstall "${folders[@]}"
}

# --use-pep517: old versions of pip would otherwise run `setup.py develop`.
install_own_packages() {
    local options=() folder
    while read -r folder; do options+=(-e "./$folder"); done < <(own_packages)
    pip_install --no-build-isolation --no-deps --use-pep517 "${options[@]}"
}

# With an installed ROS 2: our packages and the interfaces by colcon, run by the environment's Python so that scripts
# start it. Drivers in src/vendor have dependencies of their own: only their interfaces are built here.
build_workspace() {
    local folders
    mapfile -t folders < <(workspace_interfaces)
    source_ros
    # Links to files that are no more: setuptools would write through them, and colcon fails on them.
    if [ -d ros2_ws/install ]; then find ros2_ws/install -xtype l -delete; fi
    (
        cd ros2_ws
        # MAKEFLAGS: colcon's own choice adds a load limit, which stalls on a busy machine.
        MAKEFLAGS="-j$(nproc)" VIRTUAL_ENV="$venv" PATH="$venv/bin:$PATH" \
            "$venv/bin/python" -m colcon build --symlink-install \
            --paths src/instructvla* "${folders[@]#ros2_ws/}" --event-handlers console_cohesion- >&2
    ) || die "colcon build failed (see above, and ros2_ws/log/latest_build)."
}

source_ros() {
    set +u
    # shellcheck disable=SC1091
    . "$ros_prefix/setup.bash"
    set -u
}

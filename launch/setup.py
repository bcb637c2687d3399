"""Packaging for both colcon (ament_python) and pip: launch files, parameters, checkpoints; no Python of its own."""

from glob import glob

from setuptools import setup

PACKAGE = "instructvla"
CHECKPOINT_FILES = ("manifest.json", "model.safetensors", "tokenizer.json")  # what the graph reads

# Through the link to the repository's folder: colcon takes only paths below the package.
checkpoints = [
    (f"share/{PACKAGE}/{folder}", [path for name in CHECKPOINT_FILES for path in glob(f"{folder}/{name}")])
    for folder in sorted(glob("checkpoints/nano-*"))
]

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=[],
    py_modules=[],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        (f"share/{PACKAGE}/launch", sorted(glob("*.launch.py"))),
        (f"share/{PACKAGE}/config", sorted(glob("config/*"))),
        *checkpoints,
    ],
    entry_points={"console_scripts": ["instructvla = instructvla_ros.cli.main:main"]},
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="InstructVLA ROS maintainers",
    maintainer_email="maintainers@example.com",
    description="Bring-up of InstructVLA: launch files, commented parameters, checkpoints and the command line",
    license="Apache-2.0",
    python_requires=">=3.11",
)

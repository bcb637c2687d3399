"""Packaging for both colcon (ament_python) and pip: launch files and parameters, no Python of its own."""

from glob import glob

from setuptools import setup

PACKAGE = "instructvla"

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
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="InstructVLA ROS maintainers",
    maintainer_email="maintainers@example.com",
    description="Bring-up of InstructVLA: launch files and commented parameters",
    license="Apache-2.0",
    python_requires=">=3.10",
)

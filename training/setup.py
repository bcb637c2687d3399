"""Installs the training package with pip and with colcon (ament_python)."""

from setuptools import find_packages, setup

PACKAGE = "instructvla_training"

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="InstructVLA ROS maintainers",
    maintainer_email="maintainers@example.com",
    description="Makes InstructVLA checkpoints: data, Expert and Generalist stages, evaluation",
    license="Apache-2.0",
    entry_points={"console_scripts": ["instructvla-train = instructvla_training.cli:main"]},
)

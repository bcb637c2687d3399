"""Build recipe: an ament_python package that also installs with plain pip."""

from glob import glob

from setuptools import find_packages, setup

NAME = "instructvla_sim"

setup(
    name=NAME,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={NAME: ["assets/wx250s/*", "assets/franka/*"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml", *glob("README.md")]),
    ],
    entry_points={"console_scripts": [f"sim_node = {NAME}.nodes.sim_node:main"]},
    install_requires=["setuptools", "numpy", "mujoco"],
    zip_safe=False,
    maintainer="InstructVLA ROS maintainers",
    maintainer_email="maintainers@example.com",
    description="MuJoCo simulation of a WidowX-250s that speaks the Interbotix driver's interface.",
    license="Apache-2.0",
)

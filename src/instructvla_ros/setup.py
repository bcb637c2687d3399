"""Packaging for both colcon (ament_python) and pip."""

from glob import glob

from setuptools import find_packages, setup

PACKAGE = "instructvla_ros"

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        # `ros2 run` and `ros2 launch` look here; pip and colcon both install it.
        (f"lib/{PACKAGE}", sorted(glob("scripts/*"))),
    ],
    entry_points={"console_scripts": ["instructvla = instructvla_ros.cli.main:main"]},
    install_requires=["setuptools", "numpy", "PyYAML"],
    extras_require={
        "cli": ["rich", "opencv-python-headless", "imageio-ffmpeg"],
        "bags": ["jinja2", "matplotlib", "mcap", "opencv-python-headless", "rosbags", "zstandard"],
    },
    package_data={f"{PACKAGE}.bags.report": ["*.j2"]},
    zip_safe=True,
    maintainer="InstructVLA ROS maintainers",
    maintainer_email="maintainers@example.com",
    description="InstructVLA on ROS 2: nodes, control logic, the graph as data and the command line",
    license="Apache-2.0",
    python_requires=">=3.10",
)

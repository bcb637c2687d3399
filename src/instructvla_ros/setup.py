"""Packaging for both colcon (ament_python) and pip."""

from setuptools import find_packages, setup

PACKAGE = "instructvla_ros"
NODES = (
    "action_expert_node",
    "arm_controller_node",
    "fault_relay_node",
    "franka_controller_node",
    "lifecycle_manager_node",
    "reasoning_node",
    "recorder_node",
    "replay_node",
    "widowx_controller_node",
)

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
    ],
    # For `ros2 run` and `ros2 launch`. The command `instructvla` is in the package of that name (launch/).
    entry_points={"console_scripts": [f"{name} = {PACKAGE}.nodes.{name}:main" for name in NODES]},
    install_requires=["setuptools", "numpy", "PyYAML"],
    extras_require={
        "cli": ["rich", "opencv-python-headless", "imageio-ffmpeg"],
        "bags": ["jinja2", "matplotlib", "mcap", "opencv-python-headless", "rosbags", "zstandard"],
    },
    package_data={f"{PACKAGE}.bags.report": ["*.j2"]},
    zip_safe=True,
    maintainer="InstructVLA ROS maintainers",
    maintainer_email="maintainers@example.com",
    description="InstructVLA on ROS 2: nodes, control logic, the graph as data and what the command line does",
    license="Apache-2.0",
    python_requires=">=3.11",
)

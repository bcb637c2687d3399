"""Build description shared by pip and by colcon (ament_python)."""

from setuptools import find_packages, setup

PACKAGE = "instructvla_model"

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(exclude=["test", "test.*"]),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="InstructVLA ROS maintainers",
    maintainer_email="maintainers@example.com",
    description="InstructVLA model library: pure PyTorch, imports no ROS",
    license="Apache-2.0",
    python_requires=">=3.10",
)

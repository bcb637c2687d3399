"""InstructVLA on ROS 2: control logic, nodes, the graph as data and the command line.

`control` and `policy` are pure (no rclpy, no torch) and are shared by the nodes, the simulation's data
generation and the evaluation. `nodes` are thin rclpy wrappers. `graph` describes which nodes run; `cli`
starts and talks to them.
"""

__version__ = "0.1.0"

"""The ROS 2 nodes: each declares parameters, wires topics and owns one worker; decisions live in control and
policy."""

"""Closed-loop evaluation through the graph's own policy and controller code, without ROS."""

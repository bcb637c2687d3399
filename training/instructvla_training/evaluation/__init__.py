"""Closed-loop evaluation through the graph's own policy and controller code, without ROS."""

MAX_STEPS = 60
"""Policy steps of 0.2 s that a trial may take."""

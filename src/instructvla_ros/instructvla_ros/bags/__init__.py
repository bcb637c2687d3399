"""Bags (rosbag2 recordings): write, read, replay through the policy, score, report. Reading needs no ROS."""

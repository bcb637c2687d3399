"""The command line `instructvla`: works the same with the ROS 2 wheels and with a full ROS 2."""

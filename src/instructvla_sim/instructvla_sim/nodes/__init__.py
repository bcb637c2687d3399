"""The simulated robot as a ROS 2 node: the Interbotix driver's topics and services, two cameras, the task's verdict."""

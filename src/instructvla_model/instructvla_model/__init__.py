"""InstructVLA model library: one vision-language model, a mixture of adapters, a flow-matching expert.

Pure PyTorch: nothing here imports ROS or a simulator. Start reading at `policy.py`.
"""

__version__ = "0.1.0"

"""The stages: what a batch is and what its loss is. The loop itself is trainer.py."""

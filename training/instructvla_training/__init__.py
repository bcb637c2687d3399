"""Makes InstructVLA checkpoints: data, language, stages, evaluation."""

"""VLA-IT annotations of recorded episodes by a vision-language model behind an OpenAI-compatible endpoint."""

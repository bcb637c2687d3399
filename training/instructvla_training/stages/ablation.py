"""Variants of a policy with a part switched off, for the study: same weights, another configuration."""

from __future__ import annotations

from dataclasses import replace

from instructvla_model.config import PolicyConfig
from instructvla_model.policy import InstructVLA
from instructvla_training.recipes import Switches


def configuration(config: PolicyConfig, switches: Switches) -> PolicyConfig:
    """The configuration with the switched-off parts left out."""
    names = config.adapters.names if switches.mixture else config.adapters.names[:1]
    return replace(
        config,
        expert=replace(config.expert, image_stream=switches.image_stream and config.expert.image_stream),
        film=replace(config.film, conditioned=switches.film and config.film.conditioned),
        adapters=replace(config.adapters, names=names),
    )


def switched(policy: InstructVLA, switches: Switches) -> InstructVLA:
    """The policy itself where nothing changes, else a new one with its weights."""
    config = configuration(policy.config, switches)
    if config == policy.config:
        return policy
    variant = InstructVLA(config, policy.vlm.image_token_id, policy.stage)
    variant.load_state_dict(policy.state_dict())
    return variant

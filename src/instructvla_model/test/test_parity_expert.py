"""The expert reproduces the reference's golden tensors in the reference's regime."""

import dataclasses

import golden_tensors as golden
import pytest
import torch
from torch import Tensor

from instructvla_model import flow
from instructvla_model.config import PolicyConfig
from instructvla_model.expert import ActionExpert, time_embedding
from instructvla_model.presets import in_regime, preset


class _Recorder:
    """An expert that remembers the velocities it was asked for."""

    def __init__(self, expert: ActionExpert) -> None:
        self.expert, self.config, self.velocities = expert, expert.config, []

    def velocity(self, *given: object) -> Tensor:
        self.velocities.append(self.expert.velocity(*given))
        return self.velocities[-1]


def reproduce(expert: ActionExpert, given: dict[str, Tensor], views: int) -> dict[str, Tensor]:
    """Every output of one case, from its inputs: pixels, latents, proprio, actions, noise and time."""
    pixels = given["pixels"].view(-1, views, *given["pixels"].shape[1:])
    actions, noise, time = given["actions"], given["noise"][:, None], given["t"][:, None]
    film = expert.film_vision_model(pixels, given["latent"])
    B, PV, D = film.shape
    prefix = expert.encode_prefix(pixels, given["latent"], given.get("proprio"))
    noisy = flow.interpolate(noise, actions[:, None], time, expert.config.flow)
    velocity = expert.velocity(prefix, noisy, time)[:, 0]
    loss = flow.loss(expert, prefix, actions, noise_BKFA=noise, time_BK=time)
    first = expert.encode_prefix(pixels[:1], given["latent"][:1], given["proprio"][:1] if "proprio" in given else None)
    recorder = _Recorder(expert)
    sample = flow.sample(recorder, first, noise_BKFA=noise[:1])
    n = prefix.n_vision
    return {
        "fwd.film": film.view(B, PV // views, views, D).transpose(1, 2).reshape(B * views, PV // views, D),
        "fwd.vis_tokens": prefix.tokens_BPD[:, :n],
        "fwd.cog_tokens": prefix.tokens_BPD[:, n : n + given["latent"].shape[1]],
        "fwd.act_tokens": expert.action_embed(noisy, time)[:, 0],
        "fwd.velocity": velocity.flatten(1),
        "loss": loss,
        "sample": sample[:, 0],
        "sample_velocities": torch.stack([v.flatten(1) for v in recorder.velocities]),
    }


def inputs(tensors: dict[str, Tensor], case: str) -> dict[str, Tensor]:
    start = f"{case}.in."
    return {name[len(start) :]: tensor for name, tensor in tensors.items() if name.startswith(start)}


@torch.no_grad()
@pytest.mark.parametrize(("name", "state_dim"), [("action_expert_tiny", 0), ("action_expert_tiny_state", 8)])
def test_the_tiny_expert_agrees_with_one_camera_and_with_two(name, state_dim):
    tensors, meta = golden.load(name)
    frequencies = time_embedding(tensors["freqs_in"], int(meta["hidden"]), 100.0)
    computed = {"freqs": frequencies}
    for views in (1, 2):
        config = golden.tiny_reference_config(views=views, state_dim=state_dim, horizon=int(meta["horizon"]))
        expert = ActionExpert(config).eval()
        expert.load_state_dict(golden.weights(tensors, ""), strict=True)
        case = f"img{views}"
        outputs = reproduce(expert, inputs(tensors, case), views)
        computed |= {f"{case}.out.{key}": tensor for key, tensor in outputs.items()}
    golden.compare(computed, tensors, atol=1e-5)


def full_expert(config: PolicyConfig, salt: str) -> ActionExpert:
    """The full-size expert with the fixture's weights, without the blocks that the released code never reads."""
    used = dataclasses.replace(config.film, depth=config.film.blocks_used)
    with torch.device("meta"):
        expert = ActionExpert(dataclasses.replace(config, film=used))
    state = {name: golden.seeded_parameter(name, tuple(t.shape), salt) for name, t in expert.state_dict().items()}
    expert.load_state_dict(state, strict=True, assign=True)
    return expert.eval()


@pytest.mark.slow
@torch.no_grad()
def test_the_full_size_expert_agrees():
    tensors, meta = golden.load("action_expert_full")
    expert = full_expert(in_regime(preset("2b"), "reference"), meta["salt"])
    given = inputs(tensors, "img1")
    given["pixels"] = golden.seeded("full.px.1", (1, 3, 224, 224), meta["salt"])
    given["latent"] = golden.seeded("full.latent.1", (1, 64, 1536), meta["salt"])
    computed = {f"img1.out.{key}": tensor for key, tensor in reproduce(expert, given, 1).items()}
    golden.compare(computed, tensors, atol=1e-4)

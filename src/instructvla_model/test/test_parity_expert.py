"""The expert reproduces the reference's golden tensors in the reference's regime."""

import golden_tensors as golden
import pytest
import torch

from instructvla_model import flow
from instructvla_model.expert import ActionExpert

CASES = [("action_expert_tiny", 0), ("action_expert_tiny_state", 8)]


def build(name: str, views: int, state_dim: int) -> tuple[ActionExpert, dict, dict]:
    tensors, meta = golden.load(name)
    config = golden.tiny_reference_config(views=views, state_dim=state_dim, horizon=int(meta["horizon"]))
    expert = ActionExpert(config).eval()
    expert.load_state_dict(golden.weights(tensors, ""), strict=True)
    return expert, tensors, meta


def inputs(tensors: dict, views: int, rows: slice = slice(None)) -> dict:
    pixels = tensors[f"img{views}.in.pixels"]
    pixels = pixels.view(-1, views, *pixels.shape[1:])[rows]
    state = tensors.get(f"img{views}.in.proprio")
    return {
        "pixels_BVCHW": pixels,
        "latents_BNH": tensors[f"img{views}.in.latent"][rows],
        "state_BS": None if state is None else state[rows],
    }


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize(("name", "state_dim"), CASES)
def test_reference_weights_load_strictly_and_velocity_and_loss_agree(name, state_dim, views):
    expert, tensors, _ = build(name, views, state_dim)
    with torch.no_grad():
        prefix = expert.encode_prefix(**inputs(tensors, views))
        n = prefix.n_vision
        torch.testing.assert_close(
            prefix.tokens_BPD[:, :n], tensors[f"img{views}.out.fwd.vis_tokens"], atol=1e-5, rtol=0
        )
        cog = tensors[f"img{views}.out.fwd.cog_tokens"]
        torch.testing.assert_close(prefix.tokens_BPD[:, n : n + cog.shape[1]], cog, atol=1e-5, rtol=0)
        actions, noise = tensors[f"img{views}.in.actions"], tensors[f"img{views}.in.noise"]
        time = tensors[f"img{views}.in.t"][:, None]
        noisy = flow.interpolate(noise[:, None], actions[:, None], time, expert.config.flow)
        velocity = expert.velocity(prefix, noisy, time)[:, 0]
        torch.testing.assert_close(velocity.flatten(1), tensors[f"img{views}.out.fwd.velocity"], atol=1e-5, rtol=0)
        loss = flow.loss(expert, prefix, actions, noise_BKFA=noise[:, None], time_BK=time)
        torch.testing.assert_close(loss, tensors[f"img{views}.out.loss"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize(("name", "state_dim"), CASES)
def test_ten_euler_steps_agree_with_the_reference(name, state_dim, views):
    expert, tensors, _ = build(name, views, state_dim)
    with torch.no_grad():
        prefix = expert.encode_prefix(**inputs(tensors, views, slice(0, 1)))
        noise = tensors[f"img{views}.in.noise"][:1]
        sample = flow.sample(expert, prefix, noise_BKFA=noise[:, None])[:, 0]
    torch.testing.assert_close(sample, tensors[f"img{views}.out.sample"], atol=1e-5, rtol=0)


def test_film_features_are_the_reference_ones_for_two_views():
    expert, tensors, _ = build("action_expert_tiny", 2, 0)
    with torch.no_grad():
        given = inputs(tensors, 2)
        features = expert.film_vision_model(given["pixels_BVCHW"], given["latents_BNH"])
    B, PV, D = features.shape
    per_view = features.view(B, PV // 2, 2, D).transpose(1, 2).reshape(2 * B, PV // 2, D)
    torch.testing.assert_close(per_view, tensors["img2.out.fwd.film"], atol=1e-5, rtol=0)

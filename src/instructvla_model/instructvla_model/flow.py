"""Flow matching: path, target, loss and Euler sampling. t = 0 is noise, t = 1 is data."""

from __future__ import annotations

import torch
from torch import Tensor

from instructvla_model.config import FlowConfig
from instructvla_model.expert import ActionExpert, ExpertPrefix


def sample_time(shape: tuple[int, ...], config: FlowConfig, generator: torch.Generator | None = None) -> Tensor:
    """t = time_max * (1 - z), z ~ Beta(a, b), fp32 on the CPU: more weight on the noisy side.

    Beta(a, 1) is drawn by inversion (z = u^(1/a)); other b through two Gamma draws.
    """
    if config.beta_b == 1.0:
        z = torch.rand(shape, generator=generator) ** (1.0 / config.beta_a)
    else:
        alpha = torch.full(shape, config.beta_a)
        beta = torch.full(shape, config.beta_b)
        x, y = torch._standard_gamma(alpha, generator), torch._standard_gamma(beta, generator)
        z = x / (x + y)
    return config.time_max * (1.0 - z)


def interpolate(noise: Tensor, data: Tensor, time: Tensor, config: FlowConfig) -> Tensor:
    """x_t = (1 - (1 - sigma) t) noise + t data; time [B, K] against [B, K, F, A]."""
    t = time[..., None, None]
    return (1.0 - (1.0 - config.sigma_min) * t) * noise + t * data


def target(noise: Tensor, data: Tensor, config: FlowConfig) -> Tensor:
    """u = data - (1 - sigma) noise."""
    return data - (1.0 - config.sigma_min) * noise


def errors(
    expert: ActionExpert,
    prefix: ExpertPrefix,
    actions_BFA: Tensor,
    *,
    n_draws: int = 1,
    noise_BKFA: Tensor | None = None,
    time_BK: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Squared velocity errors [B, K, F, A] of `n_draws` noise draws per context (or of the given ones)."""
    config = expert.config.flow
    B = actions_BFA.shape[0]
    device = actions_BFA.device
    if time_BK is None:
        time_BK = sample_time((B, n_draws), config, generator).to(device)
    if noise_BKFA is None:
        shape = (B, time_BK.shape[1], *actions_BFA.shape[1:])
        noise_BKFA = torch.randn(shape, generator=generator).to(device)
    data_BKFA = actions_BFA.float()[:, None].expand_as(noise_BKFA)
    noisy_BKFA = interpolate(noise_BKFA, data_BKFA, time_BK, config)
    velocity_BKFA = expert.velocity(prefix, noisy_BKFA, time_BK)
    return (velocity_BKFA - target(noise_BKFA, data_BKFA, config)) ** 2


def loss(
    expert: ActionExpert,
    prefix: ExpertPrefix,
    actions_BFA: Tensor,
    *,
    n_draws: int = 1,
    weights_BF: Tensor | None = None,
    noise_BKFA: Tensor | None = None,
    time_BK: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Mean squared velocity error over contexts, draws, steps and dimensions.

    `weights_BF` weighs contexts and steps (shape [B, F] or [B, 1]); None is the paper's plain mean.
    """
    squared = errors(
        expert,
        prefix,
        actions_BFA,
        n_draws=n_draws,
        noise_BKFA=noise_BKFA,
        time_BK=time_BK,
        generator=generator,
    )
    if weights_BF is None:
        return squared.mean()
    weights = weights_BF[:, None, :, None].expand_as(squared)
    return (squared * weights).sum() / weights.sum().clamp(min=1e-8)


def clock(n_steps: int, dtype: torch.dtype = torch.float32) -> list[float]:
    """Times at which `sample` asks for a velocity: k / n_steps, or in a half precision the sum of rounded steps."""
    if dtype == torch.float32:
        return [step / n_steps for step in range(n_steps)]
    times = [torch.zeros((), dtype=dtype)]
    for _ in range(n_steps - 1):
        times.append(times[-1] + 1.0 / n_steps)
    return [float(time) for time in times]


@torch.no_grad()
def sample(
    expert: ActionExpert,
    prefix: ExpertPrefix,
    *,
    n_samples: int = 1,
    n_steps: int | None = None,
    noise_BKFA: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Forward-Euler integration from noise -> normalised actions, fp32 [B, K, F, A].

    Actions and clock are kept in fp32 or, if the configuration says so, in the latents' dtype. Noise is drawn on
    the CPU, so one seed gives the same chunk on every device.
    """
    config = expert.config
    steps = n_steps or config.flow.n_steps
    device = prefix.tokens_BPD.device
    if noise_BKFA is None:
        B = prefix.tokens_BPD.shape[0]
        shape = (B, n_samples, config.expert.horizon, config.expert.action_dim)
        noise_BKFA = torch.randn(shape, generator=generator)
    kind = torch.float32 if config.flow.state_dtype == "float32" else prefix.tokens_BPD.dtype
    x_BKFA = noise_BKFA.to(device, kind)
    for time in clock(steps, kind):
        time_BK = torch.full(x_BKFA.shape[:2], time, device=device)
        x_BKFA = x_BKFA + expert.velocity(prefix, x_BKFA, time_BK).to(kind) / steps
    return x_BKFA.float()

"""torch.compile for the two vision towers, whose shapes never change: the rest of a policy sees growing caches.

The first pass of each tower compiles it, which takes a minute or more and a C++ compiler (on a GPU also Triton).
"""

from __future__ import annotations

from torch import nn

from instructvla_model.expert import ActionExpert
from instructvla_model.vlm import VisionLanguageModel

BACKEND = "inductor"


def compile_vision(vlm: VisionLanguageModel | None, expert: ActionExpert | None) -> int:
    """Hand the towers to torch.compile, which works at their first pass -> how many. For inference only."""
    towers: list[nn.Module] = []
    if vlm is not None:
        towers.append(vlm.vision_model)
    if expert is not None:
        towers.append(expert.film_vision_model)
    for tower in towers:
        tower.compile(backend=BACKEND)
    return len(towers)

"""What stages on frames of the built-in simulation share: the scene of a frame, and what a person may ask about it."""

from __future__ import annotations

import numpy as np

from instructvla_model.policy import InstructVLA
from instructvla_model.types import Observation
from instructvla_training.data.observe import scene_view
from instructvla_training.data.shards import Frames
from instructvla_training.language import SceneView
from instructvla_training.recipes import StageRecipe
from instructvla_training.samples import TrainedStage

from .draw import held_out
from .text import Prompter


class SimulatedStage(TrainedStage):
    """``policy`` on recorded ``frames`` of which the ground truth is known."""

    def __init__(self, policy: InstructVLA, prompter: Prompter, frames: Frames, recipe: StageRecipe):
        super().__init__()
        self.policy, self.prompter, self.frames, self.recipe = policy, prompter, frames, recipe
        self.held_out = held_out(frames)

    def view(self, i: int) -> SceneView:
        """The scene of frame ``i`` as the language generator sees it."""
        episode = self.frames.episodes[self.frames.episode[i]]
        return scene_view(self.frames.objects[i], episode.family, episode.target, episode.place)

    def asked(self, episode: int, rng: np.random.Generator) -> tuple[str, str, str]:
        """Mode of the runtime, question and true answer about an episode's first frame."""
        language, view = self.prompter.language, self.view(int(self.frames.first[episode]))
        if self.recipe.stage == "generalist":
            item = language.rewrite(view, rng)
            return "think", item.instruction, item.answer
        question = language.qa(view, rng) or language.caption(view, rng)
        return "answer", question.question, question.answer

    def instruction(self, episode: int) -> str:
        """The plain instruction of an episode."""
        return self.prompter.language.atomic(self.view(int(self.frames.first[episode]))).instruction

    def observation(self, frame: int) -> Observation:
        """What the runtime would be given at a recorded step."""
        images = dict.fromkeys(self.policy.config.views, self.frames.image[frame])
        return Observation(images, self.frames.state[frame], 0.0)

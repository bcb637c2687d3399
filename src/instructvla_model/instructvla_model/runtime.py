"""PolicyRuntime: the one inference entry point, for the nodes and for evaluation.

Not thread-safe: one owner thread per runtime. A stream of `think` may be interleaved with `latents` and
`act` from that thread, since every call works on caches of its own. Nothing here downloads.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from instructvla_model import checkpoint, flow, generate
from instructvla_model.compiled import compile_vision
from instructvla_model.expert import ActionExpert
from instructvla_model.generate import TextState
from instructvla_model.graphs import Graphed
from instructvla_model.manifest import Manifest
from instructvla_model.packed import SMALL_MODEL, pack_linears, packs
from instructvla_model.prompts import PromptBuilder
from instructvla_model.quantized import Int8Linear
from instructvla_model.tokenizer import PolicyTokenizer
from instructvla_model.types import ActionChunk, LatentPlan, Observation, Thought
from instructvla_model.vlm import VisionLanguageModel
from instructvla_model.weights import DTYPES

Picture = np.ndarray | Mapping[str, np.ndarray]  # one image, or images by view
VLM_WEIGHTS = ("full", "int8")
THINK_MODES = ("think", "motion", "answer")
_log = logging.getLogger(__name__)


class RuntimeInputError(ValueError):
    """An observation, plan or option that cannot be used; the message is fit to be shown to the user."""


def choose_device(device: str) -> torch.device:
    """`auto` = CUDA where there is one, else the CPU. Raises RuntimeInputError for what is absent."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise RuntimeInputError(f"device {device!r} is unknown; expected auto, cpu or cuda[:index]") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeInputError(f"device {device!r} asked for, but PyTorch sees no CUDA device; use cpu or auto")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise RuntimeInputError(f"device {device!r}: PyTorch sees {torch.cuda.device_count()} of them; use another")
    return chosen


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """`auto` = bfloat16 on CUDA, float32 on the CPU."""
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if dtype not in DTYPES:
        raise RuntimeInputError(f"dtype {dtype!r}; expected auto or one of {sorted(DTYPES)}")
    return DTYPES[dtype]


class PolicyRuntime:
    """A loaded policy: `think` writes text, `latents` plans, `act` makes a chunk of actions."""

    def __init__(
        self,
        manifest: Manifest,
        tokenizer: PolicyTokenizer,
        vlm: VisionLanguageModel | None,
        expert: ActionExpert | None,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Runs modules that exist already (evaluation during training); they are set to eval mode."""
        self.manifest = manifest
        self.tokenizer = tokenizer
        self.device = device or torch.device("cpu")
        self.dtype = dtype
        self._vlm = vlm.eval() if vlm is not None else None
        self._expert = expert.eval() if expert is not None else None
        self._prompts = PromptBuilder(tokenizer, manifest.config)
        self._sample = Graphed(self._flow) if self.device.type == "cuda" else self._flow

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str = "auto",
        dtype: str = "auto",
        parts: Sequence[str] = checkpoint.PARTS,
        base: str | Path | None = None,
        threads: int | None = None,
        vlm_weights: str = "full",
        compiled: bool = False,
    ) -> PolicyRuntime:
        """Load a checkpoint folder. Raises CheckpointError or RuntimeInputError.

        `vlm_weights` "int8" stores the VLM's large matrices in a byte a number: less memory, about the same text.
        `compiled` hands both vision towers to torch.compile (compiled.py); `warm_up` then takes minutes.
        Without it, large models in float32 on a CPU get their matrices packed for oneDNN (packed.py).

        `threads` sets PyTorch's CPU threads for the whole process; None leaves small models (under
        SMALL_MODEL parameters) one thread and others what PyTorch has: on a busy machine the threads of
        a small model wait for each other far longer than they compute.
        """
        where = choose_device(device)
        kind = choose_dtype(dtype, where)
        if vlm_weights not in VLM_WEIGHTS:
            raise RuntimeInputError(f"vlm_weights {vlm_weights!r}; expected one of {VLM_WEIGHTS}")
        loaded = checkpoint.load_parts(
            path, parts=parts, dtype=kind, device=where, base=base, unread=False,
            make_linear=Int8Linear if vlm_weights == "int8" else None,
        )  # fmt: skip
        if compiled:
            compile_vision(loaded.vlm, loaded.expert)
        modules = [module for module in (loaded.vlm, loaded.expert) if module is not None]
        size = sum(parameter.numel() for module in modules for parameter in module.parameters())
        for module in modules:
            if not compiled and packs(module, where, kind):
                pack_linears(module)
        if threads is not None or (where.type == "cpu" and size < SMALL_MODEL):
            torch.set_num_threads(threads or 1)
        return cls(loaded.manifest, loaded.tokenizer, loaded.vlm, loaded.expert, where, kind)

    @property
    def vlm(self) -> VisionLanguageModel:
        if self._vlm is None:
            raise RuntimeInputError("the vision-language model is not loaded; load with parts=('vlm', ...)")
        return self._vlm

    @property
    def expert(self) -> ActionExpert:
        if self._expert is None:
            raise RuntimeInputError("the action expert is not loaded; load with parts=('expert', ...)")
        return self._expert

    # ---- reasoning ------------------------------------------------------------------------------------

    def _prompt(self, image: Picture, mode: str, instruction: str) -> Tensor:
        """Embeddings of image and prompt up to the open assistant header, [1, S, H]."""
        ids_1S = torch.tensor([self._prompts.opening(mode, instruction)], device=self.device)
        pixels_1CHW = self.manifest.vlm_recipe.apply_joined(self._seen(image))[None].to(self.device, self.dtype)
        return self.vlm.embed(ids_1S, self.vlm.encode_images(pixels_1CHW))

    def _seen(self, image: Picture) -> list[np.ndarray]:
        """What the VLM looks at: the first view, or all views, which its recipe joins side by side."""
        views, joined = self.manifest.views, self.manifest.config.vlm_input == "side_by_side"
        if not isinstance(image, Mapping):
            if joined:
                raise RuntimeInputError(
                    f"one image given; expected a mapping with the views {views}, seen side by side"
                )
            return [image]
        wanted = views if joined else views[:1]
        missing = [view for view in wanted if view not in image]
        if missing:
            raise RuntimeInputError(f"images of {sorted(image)}; {missing} missing; expected {wanted}")
        return [image[view] for view in wanted]

    def think(
        self,
        image: Picture,
        instruction: str,
        mode: str = "think",
        max_new_tokens: int = 50,
        should_stop: Callable[[], bool] | None = None,
    ) -> Iterator[Thought]:
        """Write text about `image` (RGB uint8, or the views by name) token by token.

        mode: "think" (answer first, then act), "motion" (language motion, then act), "answer" (a plain
        answer). Yields after each token; the last has `final` set, also when `should_stop` said so.
        Raises PromptError for a bad instruction, ImageError for a bad image, at the first `next`.
        """
        if mode not in THINK_MODES:
            raise RuntimeInputError(f"mode {mode!r}; expected one of {THINK_MODES}")
        begin = time.perf_counter()
        with torch.inference_mode():
            prompt_1SH = self._prompt(image, mode, instruction)
        states = generate.stream(self.vlm, self.tokenizer, prompt_1SH, max_new_tokens, should_stop)
        seen = 0
        for state in states:
            final = bool(state.stop)
            if not final and len(state.token_ids) == seen:
                continue  # the prompt alone, or nothing new
            seen = len(state.token_ids)
            text = self.tokenizer.decode(state.token_ids).strip()
            latency_s = time.perf_counter() - begin
            yield Thought(instruction, text, final, seen, latency_s, state if final else None, mode)

    @torch.inference_mode()
    def latents(
        self,
        image: Picture,
        instruction: str,
        thought: Thought | None = None,
        *,
        reuse_cache: bool = False,
        instruction_id: int = 0,
        seq: int = 0,
        stamp_s: float = 0.0,
    ) -> LatentPlan:
        """Latent actions for `image` and `instruction`, after the text of `thought` if there is one.

        `reuse_cache`: continue from the thought's caches (its image counts, `image` is not looked at);
        otherwise everything is encoded with the new image. A thought of mode "answer" is left aside.
        """
        if thought is not None and thought.mode == "answer":
            thought = None
        if thought is not None and thought.instruction != instruction:
            raise RuntimeInputError(
                f"thought is about {thought.instruction!r}, not {instruction!r}; think about the new one"
            )
        if thought is not None and reuse_cache:
            if not isinstance(thought.cache, TextState):
                raise RuntimeInputError("this thought has no caches (not the final one?); use reuse_cache=False")
            result = generate.latents_after(self.vlm, self.tokenizer, thought.cache)
        else:
            text_ids = self._text_ids(thought)
            prompt_1SH = self._prompt(image, thought.mode if thought else "action", instruction)
            result = generate.latents_of_text(self.vlm, self.tokenizer, prompt_1SH, text_ids)
        return LatentPlan(
            result.latents_1NH[0].float().cpu(), stamp_s, instruction_id, seq, result.gate_mean,
            thought.text if thought else "",
        )  # fmt: skip

    def _text_ids(self, thought: Thought | None) -> Sequence[int] | None:
        if thought is None:
            return None
        if isinstance(thought.cache, TextState):
            return thought.cache.text_ids
        return self.tokenizer.encode(thought.text)

    # ---- acting ---------------------------------------------------------------------------------------

    @torch.inference_mode()
    def act(self, obs: Observation, plan: LatentPlan, *, seed: int | None = None, seq: int = 0) -> ActionChunk:
        """A chunk of actions for what is seen now under a plan; metres, radians, opening 0..1.

        `seed` fixes the flow's noise. Raises RuntimeInputError for a missing view, a missing or
        non-finite state, or a plan of another size.
        """
        manifest = self.manifest
        if manifest.statistics is None:
            raise RuntimeInputError(
                f"checkpoint {manifest.checkpoint_id} has no action statistics (stage "
                f"{manifest.stage!r}); use an expert or generalist checkpoint"
            )
        expected = (manifest.n_queries, manifest.latent_dim)
        if tuple(plan.latents.shape) != expected:
            raise RuntimeInputError(
                f"latents of shape {tuple(plan.latents.shape)}; expected {expected}; "
                "the plan comes from another checkpoint"
            )
        if not bool(torch.isfinite(plan.latents).all()):
            raise RuntimeInputError("latents hold NaN or infinity; expected finite numbers; plan again")
        generator = torch.Generator()
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(seed)
        shape = (1, 1, manifest.horizon, manifest.config.expert.action_dim)
        noise_11FA = torch.randn(shape, generator=generator).to(self.device)  # drawn on the CPU: the same everywhere
        latents_1NH = plan.latents[None].to(self.device, self.dtype)
        actions_FA = self._sample(self._pixels(obs), latents_1NH, self._state(obs), noise_11FA).cpu().numpy()
        steps = manifest.denormalize(actions_FA)
        if not np.isfinite(steps).all():
            raise RuntimeInputError("the policy returned NaN or infinity; expected finite actions; hold and replan")
        return ActionChunk(
            delta_xyz_m=steps[:, 0:3],
            delta_rpy_rad=steps[:, 3:6],
            gripper=np.clip(steps[:, 6], 0.0, 1.0),
            dt_s=manifest.dt_s,
            stamp_s=obs.stamp_s,
            instruction_id=plan.instruction_id,
            seq=seq,
            latent_seq=plan.seq,
        )

    def _flow(self, pixels: Tensor, latents: Tensor, state: Tensor | None, noise: Tensor) -> Tensor:
        """The expert's whole work for one chunk -> normalised actions [F, A]."""
        prefix = self.expert.encode_prefix(pixels, latents, state)
        return flow.sample(self.expert, prefix, noise_BKFA=noise)[0, 0]

    def _pixels(self, obs: Observation) -> Tensor:
        missing = [view for view in self.manifest.views if view not in obs.images]
        if missing:
            raise RuntimeInputError(
                f"observation has views {sorted(obs.images)}; {missing} missing; expected {self.manifest.views}"
            )
        views = [self.manifest.expert_recipe.apply(obs.images[view]) for view in self.manifest.views]
        return torch.stack(views)[None].to(self.device, self.dtype)

    def _state(self, obs: Observation) -> Tensor | None:
        dim = self.manifest.state_dim
        if dim == 0:
            return None
        assert self.manifest.statistics is not None
        if self.manifest.statistics.state is None or obs.state is None:
            raise RuntimeInputError(f"state or its statistics missing; this checkpoint needs {dim} numbers")
        state = np.asarray(obs.state, dtype=np.float64)
        if state.shape != (dim,) or not np.isfinite(state).all():
            raise RuntimeInputError(f"state {state.tolist()}; expected {dim} finite numbers; hold until it is read")
        normalized = self.manifest.statistics.state.normalize(state)
        return torch.from_numpy(normalized)[None].to(self.device, self.dtype)

    # ---- warm-up --------------------------------------------------------------------------------------

    def warm_up(self, rounds: int = 2) -> float:
        """Run every loaded path on blank inputs and return the seconds of the last round."""
        elapsed = 0.0
        for _ in range(rounds):
            begin = time.perf_counter()
            self._warm_round()
            elapsed = time.perf_counter() - begin
        _log.info("warm-up round took %.3f s on %s %s", elapsed, self.device, self.dtype)
        return elapsed

    def _warm_round(self) -> None:
        view = np.zeros((480, 640, 3), dtype=np.uint8)
        blank = dict.fromkeys(self.manifest.views, view)
        latents_NH = torch.zeros(self.manifest.n_queries, self.manifest.latent_dim)
        if self._vlm is not None:
            for thought in self.think(blank, "warm up", max_new_tokens=2):
                if thought.final:
                    latents_NH = self.latents(blank, "warm up", thought, reuse_cache=True).latents
            self.latents(blank, "warm up")
        if self._expert is not None and self.manifest.statistics is not None:
            state = np.zeros(self.manifest.state_dim, dtype=np.float32)
            obs = Observation(blank, state, 0.0)
            self.act(obs, LatentPlan(latents_NH, 0.0, 0, 0, (), ""), seed=0)

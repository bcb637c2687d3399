"""Memory that a policy of a preset's size takes while it is loaded or imported, each in a process of its own.

The weights are random numbers in real files. Peaks are those of the whole process, Python and PyTorch included:
`peak` of everything resident, `private` without pages of mapped files, which the system takes back when it needs them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models
from torch import Tensor

from instructvla_model import checkpoint, weights
from instructvla_model.benchmark.timing import device_name
from instructvla_model.config import PolicyConfig
from instructvla_model.manifest import new_manifest, write_manifest
from instructvla_model.presets import in_regime, preset
from instructvla_model.released.exporting import export_checkpoint
from instructvla_model.released.importing import ImportOptions, import_checkpoint
from instructvla_model.runtime import PolicyRuntime
from instructvla_model.tokenizer import SPECIAL_TOKENS, TOKENIZER_FILE, load_tokenizer, with_queries, without_queries

_SAMPLE_S = 0.005
_SPREAD = 0.02


@dataclass(frozen=True)
class Memory:
    """Of one piece of work. `weights_bytes`: of the loaded modules, or of the written file."""

    work: str
    weights_bytes: int
    peak_bytes: int
    private_bytes: int
    seconds: float


@dataclass(frozen=True)
class Result:
    """All figures of one run."""

    preset: str
    attention: str
    stored: str
    dtype: str
    vlm_weights: str
    device: str
    date: str
    figures: tuple[Memory, ...]

    @classmethod
    def of(cls, config: PolicyConfig, stored: str, dtype: str, vlm_weights: str, figures: Sequence[Memory]) -> Result:
        """With this machine's name and today's date."""
        machine, today = device_name(torch.device("cpu")), f"{datetime.now(UTC):%Y-%m-%d}"
        return cls(config.name, config.expert.attention, stored, dtype, vlm_weights, machine, today, tuple(figures))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """A table for people."""
        head = (
            f"{self.preset}, expert {self.attention}, stored as {self.stored}, loaded as {self.dtype}, "
            f"VLM weights {self.vlm_weights}; {self.device}; {self.date}"
        )
        rows = [head, f"{'work':8s} {'weights GB':>11s} {'peak GB':>9s} {'private GB':>11s} {'seconds':>9s}"]
        for figure in self.figures:
            sizes = (figure.weights_bytes, figure.peak_bytes, figure.private_bytes)
            weights_gb, peak_gb, private_gb = (size / 1e9 for size in sizes)
            rows.append(f"{figure.work:8s} {weights_gb:11.2f} {peak_gb:9.2f} {private_gb:11.2f} {figure.seconds:9.1f}")
        return rows


# ---- files of random numbers ------------------------------------------------------------------------------


def _tokenizer(n_tokens: int) -> Tokenizer:
    """The template's tokens, and filling."""
    filling = (f"t{i}" for i in range(n_tokens - len(SPECIAL_TOKENS)))
    words = {token: i for i, token in enumerate((*SPECIAL_TOKENS, *filling))}
    backend = Tokenizer(models.WordLevel(words, unk_token="t0"))
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    return backend


def write_random(folder: Path, config: PolicyConfig, stage: str, dtype: str) -> None:
    """A checkpoint of random numbers, written one tensor at a time."""
    folder.mkdir(parents=True)
    tokenizer = with_queries(_tokenizer(config.language.vocab_size), config.n_queries)
    tokenizer.save(folder)
    shapes = checkpoint.tensor_shapes(config, stage)

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name, shape in shapes.items():
            yield name, torch.empty(shape, dtype=weights.DTYPES[dtype]).uniform_(-_SPREAD, _SPREAD)

    digest = weights.write_stream(folder / checkpoint.MODEL_FILE, shapes, weights.DTYPES[dtype], tensors())
    manifest = new_manifest(config, stage, None)
    write_manifest(folder, replace(manifest, weights_sha256=digest, storage_dtype=dtype))


def write_released(folder: Path, out: Path) -> tuple[Path, Path]:
    """The same weights as a released `.pt`, and a backbone's folder with the tokenizer."""
    backbone = out / "backbone"
    backbone.mkdir(parents=True)
    (backbone / TOKENIZER_FILE).write_text(without_queries(load_tokenizer(folder)), encoding="utf-8")
    file, *_ = export_checkpoint(folder, out / "checkpoints" / "random.pt")
    return file, backbone


# ---- the work, in a process of its own --------------------------------------------------------------------


def measure(work: str, **options: str) -> Memory:
    """Run `work` ("load" or "import") in a new process. RuntimeError with its last words if it fails."""
    command = [sys.executable, "-m", "instructvla_model.benchmark.memory", work, json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or "nothing").splitlines()[-1]
        raise RuntimeError(f"{work} ended with status {done.returncode}: {said}; expected it to fit into memory")
    return Memory(**json.loads(done.stdout.splitlines()[-1]))


def _load(options: Mapping[str, str]) -> int:
    runtime = PolicyRuntime.load(
        options["folder"], options["device"], options["dtype"], vlm_weights=options["vlm_weights"]
    )
    modules = (runtime.vlm, runtime.expert)
    return sum(t.nbytes for module in modules for t in (*module.parameters(), *module.buffers()))


def _import(options: Mapping[str, str]) -> int:
    out = Path(options["out"])
    config = in_regime(preset(options["preset"]), options["regime"])
    chosen = ImportOptions(regime=options["regime"], dtype=options["dtype"])
    import_checkpoint(options["source"], out, config, options["backbone"], options=chosen)
    return (out / checkpoint.MODEL_FILE).stat().st_size


def resident() -> Mapping[str, int]:
    """The process's own account of its memory in bytes: VmHWM, RssAnon and others (Linux)."""
    lines = (line.split() for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
    return {words[0].rstrip(":"): 1024 * int(words[1]) for words in lines if words[-1] == "kB"}


class _PrivatePeak:
    """The largest RssAnon while it is entered, looked at every few milliseconds."""

    def __enter__(self) -> _PrivatePeak:
        self.bytes, self._done = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(_SAMPLE_S):
            self.bytes = max(self.bytes, resident()["RssAnon"])

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.bytes = max(self.bytes, resident()["RssAnon"])


def main(work: str, options: Mapping[str, str]) -> Memory:
    """Do the work here and say what it took."""
    begin = time.perf_counter()
    with _PrivatePeak() as private:
        n_bytes = {"load": _load, "import": _import}[work](options)
    return Memory(work, n_bytes, resident()["VmHWM"], private.bytes, time.perf_counter() - begin)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(main(sys.argv[1], json.loads(sys.argv[2])))) + "\n")

"""Tokenizer of a policy: byte-level BPE as Qwen2's, the template's special tokens, the query tokens last."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

TOKENIZER_FILE = "tokenizer.json"
END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
IMAGE_START, IMAGE_END, IMAGE_CONTEXT = "<img>", "</img>", "<IMG_CONTEXT>"
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END, IMAGE_START, IMAGE_END, IMAGE_CONTEXT)

# Qwen2's word splitting: contractions, words with the space or sign before them, single digits, signs, space
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


_TEMPLATE_WORDS = ["system\n", "user\n", "assistant\n"]


class TokenizerError(ValueError):
    """A tokenizer file that cannot serve this model."""


def query_token(index: int) -> str:
    return f"<new_token_{index}>"


class PolicyTokenizer:
    """Wraps a transformers fast tokenizer and names the ids the model needs.

    `vocab_size` counts every token but the queries; queries hold the ids vocab_size .. vocab_size+N-1.
    """

    def __init__(self, hf: PreTrainedTokenizerFast) -> None:
        self.hf = hf
        vocabulary = hf.get_vocab()
        missing = [token for token in SPECIAL_TOKENS if token not in vocabulary]
        if missing:
            raise TokenizerError(
                f"tokenizer lacks {missing}; expected the tokens of the chat template; "
                "use the tokenizer.json of the checkpoint"
            )
        ids: list[int] = []
        while query_token(len(ids)) in vocabulary:
            ids.append(vocabulary[query_token(len(ids))])
        self.n_queries = len(ids)
        self.vocab_size = len(hf) - self.n_queries
        if not ids or ids != list(range(self.vocab_size, len(hf))):
            raise TokenizerError(
                f"query tokens have ids {ids[:3]}...; expected {query_token(0)} onwards at the "
                f"end of the vocabulary of {len(hf)}; add them last"
            )
        self.query_ids: tuple[int, ...] = tuple(ids)
        self.pad_id = vocabulary[END_OF_TEXT]
        self.turn_start_id, self.turn_end_id = vocabulary[TURN_START], vocabulary[TURN_END]
        self.image_start_id, self.image_end_id = vocabulary[IMAGE_START], vocabulary[IMAGE_END]
        self.image_token_id = vocabulary[IMAGE_CONTEXT]
        self.stop_ids: frozenset[int] = frozenset((self.pad_id, self.turn_start_id, self.turn_end_id))

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; nothing is added. Strings of special tokens in it become those tokens."""
        return list(self.hf.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`; incomplete bytes become U+FFFD, nothing raises."""
        return str(self.hf.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def save(self, folder: str | Path) -> None:
        self.hf.backend_tokenizer.save(str(Path(folder) / TOKENIZER_FILE))

    def to_json(self) -> str:
        return str(self.hf.backend_tokenizer.to_str())


def _wrap(backend: Tokenizer) -> PolicyTokenizer:
    hf = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=END_OF_TEXT,
        eos_token=TURN_END,
        clean_up_tokenization_spaces=False,
    )
    hf.padding_side = "right"
    return PolicyTokenizer(hf)


def train_tokenizer(corpus: Iterable[str], vocab_size: int, n_queries: int) -> PolicyTokenizer:
    """Train byte-level BPE on `corpus`: at most `vocab_size` tokens before the queries (at least 262).

    The template's own words are counted in often enough to become single tokens; the catalogue's prompts
    are the corpus's to hold.
    """
    floor = 256 + len(SPECIAL_TOKENS)
    if vocab_size < floor:
        raise TokenizerError(f"vocab_size={vocab_size}; expected at least {floor} (bytes and special tokens)")
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(chain(corpus, _TEMPLATE_WORDS * 1000), trainer)
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    backend.add_tokens([query_token(i) for i in range(n_queries)])
    return _wrap(backend)


def load_tokenizer(path: str | Path) -> PolicyTokenizer:
    """Read a tokenizer.json, or the one in a folder. Raises TokenizerError with the path."""
    path = Path(path)
    file = path / TOKENIZER_FILE if path.is_dir() else path
    return _wrap(load_backend(file))


def load_backend(file: Path) -> Tokenizer:
    """Read a tokenizer.json. Raises TokenizerError with the path."""
    if not file.is_file():
        raise TokenizerError(f"{file} is missing; expected the tokenizer of the checkpoint; copy it there")
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the Rust library raises bare Exception
        raise TokenizerError(f"{file} is no tokenizer file: {error}; restore it from the checkpoint") from error


def load_released_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer of a backbone's folder, without latent queries. Runs no code of the folder's.

    Raises TokenizerError with the path.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise TokenizerError(f"{folder} is no folder; expected the backbone's, with its tokenizer; give its path")
    if (folder / TOKENIZER_FILE).is_file():
        return load_backend(folder / TOKENIZER_FILE)
    try:
        loaded = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers and the Rust library raise many types
        raise TokenizerError(
            f"{folder} holds no tokenizer: {str(error).splitlines()[0]}; expected tokenizer.json, or vocab.json and "
            "merges.txt; copy them from the backbone"
        ) from error
    return Tokenizer.from_str(loaded.backend_tokenizer.to_str())


def with_queries(backend: Tokenizer, n_queries: int) -> PolicyTokenizer:
    """The tokenizer with `n_queries` latent queries as its last tokens."""
    backend.add_tokens([query_token(i) for i in range(n_queries)])
    return _wrap(backend)


def without_queries(tokenizer: PolicyTokenizer) -> str:
    """The tokenizer.json of the backbone below: the same without the latent queries."""
    values = json.loads(tokenizer.to_json())
    values["added_tokens"] = [t for t in values["added_tokens"] if t["id"] < tokenizer.vocab_size]
    return json.dumps(values, ensure_ascii=False)

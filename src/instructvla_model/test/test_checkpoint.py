"""Checkpoint folders: round trips, partial loads, adapters over a base, and everything that is refused."""

import dataclasses
import hashlib
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from instructvla_model import checkpoint, weights
from instructvla_model.benchmark.memory import resident
from instructvla_model.image import recipe
from instructvla_model.manifest import CheckpointError, new_manifest, read_manifest
from instructvla_model.normalization import Statistics, compute

SHIPPED = Path(__file__).parents[3] / "checkpoints"
RNG = np.random.default_rng(0)
STATISTICS = Statistics(compute(RNG.normal(size=(50, 7)), mask=[True] * 6 + [False]), compute(RNG.normal(size=(50, 8))))


@pytest.fixture
def saved(make_policy, tokenizer, tmp_path):
    """A saved policy: (folder, policy, manifest)."""

    def make(stage="expert", name="ckpt", policy=None, **options):
        policy = policy or make_policy(stage)
        manifest = new_manifest(policy.config, stage, STATISTICS, {"steps": 7})
        folder = tmp_path / name
        return folder, policy, checkpoint.save(folder, policy, tokenizer, manifest, **options)

    return make


def rewrite(folder, edit):
    """Change the weights and keep the manifest's hash true."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)
    values = json.loads((folder / "manifest.json").read_text())
    values["weights_sha256"] = weights.sha256(path)
    (folder / "manifest.json").write_text(json.dumps(values))


def edit_manifest(folder, edit):
    values = json.loads((folder / "manifest.json").read_text())
    edit(values)
    (folder / "manifest.json").write_text(json.dumps(values))


@pytest.mark.parametrize("stage", ["base", "expert", "generalist"])
def test_a_saved_policy_comes_back_bit_for_bit(saved, tokenizer, stage):
    folder, policy, manifest = saved(stage)
    again, same_tokenizer, same_manifest = checkpoint.load_policy(folder)
    assert same_manifest == manifest
    assert same_manifest.training == {"steps": 7}
    assert same_tokenizer.to_json() == tokenizer.to_json()
    assert (again.stage, again.vlm.mode) == (stage, policy.vlm.mode)
    state = again.state_dict()
    assert set(state) == set(policy.state_dict())
    for name, tensor in policy.state_dict().items():
        assert torch.equal(state[name], tensor), name
    assert not any(t.is_meta for t in [*again.parameters(), *again.buffers()])


def test_a_loaded_policy_computes_what_the_saved_one_did(saved):
    folder, policy, _ = saved("generalist")
    again = checkpoint.load_policy(folder)[0].eval()
    embeds, pixels = torch.randn(1, 5, 24), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        for vlm in (policy.vlm,):
            expected = vlm.hidden(embeds, vlm.mix_for(embeds)), vlm.encode_images(pixels)
        got = again.vlm.hidden(embeds, again.vlm.mix_for(embeds)), again.vlm.encode_images(pixels)
    assert torch.equal(got[0], expected[0])
    assert torch.equal(got[1], expected[1])


def test_tied_tables_are_stored_once_and_tied_again(saved, make_policy, config):
    policy = make_policy("base", language=dataclasses.replace(config.language, tie_embeddings=True))
    folder, _, _ = saved("base", policy=policy)
    names = load_file(folder / "model.safetensors").keys()
    assert not any("lm_head" in name or "query_head" in name for name in names)
    again = checkpoint.load_policy(folder)[0]
    assert again.vlm.language_model.lm_head.weight is again.vlm.language_model.model.embed_tokens.weight
    assert again.vlm.query_head is again.vlm.query_embed


def test_bfloat16_storage_halves_the_file_and_rounds(saved):
    full, policy, _ = saved()
    half, _, manifest = saved(name="half", policy=policy, dtype="bfloat16")
    sizes = [(f / "model.safetensors").stat().st_size for f in (full, half)]
    assert sizes[1] < 0.7 * sizes[0]
    assert manifest.storage_dtype == "bfloat16"
    again = checkpoint.load_policy(half)[0]
    for a, b in zip(again.parameters(), policy.parameters(), strict=True):
        assert torch.equal(a, b.to(torch.bfloat16).float())


def test_parts_can_be_loaded_alone(saved):
    folder, _, _ = saved()
    loaded = checkpoint.load_parts(folder, parts=("expert",))
    assert loaded.vlm is None
    assert loaded.expert is not None
    loaded = checkpoint.load_parts(folder, parts=("vlm",), dtype=torch.bfloat16)
    assert loaded.expert is None
    assert loaded.vlm.query_embed.dtype == torch.bfloat16


@pytest.mark.parametrize("parts", [(), ("vlm", "gripper")])
def test_unknown_parts_are_refused(saved, parts):
    with pytest.raises(CheckpointError, match="expected some of"):
        checkpoint.load_parts(saved()[0], parts=parts)


def test_adapters_alone_are_stored_over_a_named_base(saved, make_policy):
    base, _policy, base_manifest = saved("expert", "base")
    generalist = checkpoint.load_policy(base)[0]
    torch.manual_seed(1)
    generalist.set_stage("generalist")
    with torch.no_grad():
        generalist.vlm.query_embed.add_(1.0)
    folder, _, manifest = saved("generalist", "top", policy=generalist, base=base)
    stored = load_file(folder / "adapters.safetensors")
    assert not (folder / "model.safetensors").exists()
    assert all("language" in n or ".gate." in n or n == "vlm.query_embed" for n in stored)
    assert (manifest.base_id, manifest.base_path) == (base_manifest.checkpoint_id, "../base")
    again = checkpoint.load_policy(folder)[0]
    for name, tensor in generalist.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_a_moved_base_can_be_given_and_another_base_is_refused(saved, make_policy, tmp_path):
    base, _policy, _ = saved("expert", "base")
    generalist = checkpoint.load_policy(base)[0]
    generalist.set_stage("generalist")
    folder, _, _ = saved("generalist", "top", policy=generalist, base=base)
    shutil.move(base, tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="does not exist"):
        checkpoint.load_policy(folder)
    assert checkpoint.load_policy(folder, base=tmp_path / "elsewhere")[0].stage == "generalist"
    other = make_policy("expert")
    with torch.no_grad():
        other.vlm.query_embed.zero_()
    stranger, _, _ = saved("expert", "stranger", policy=other)
    with pytest.raises(CheckpointError, match="these adapters were trained on"):
        checkpoint.load_policy(folder, base=stranger)


def test_saving_again_replaces_the_old_kind_of_weights(saved):
    base, policy, _ = saved("expert", "base")
    folder, _, _ = saved("expert", "top", policy=policy, base=base)
    saved("expert", "top", policy=policy)
    assert not (folder / "adapters.safetensors").exists()
    assert read_manifest(folder).base_id is None


def test_numbers_that_a_type_does_not_reach_are_neither_stored_nor_loaded_in_it(saved, make_policy):
    policy = make_policy("expert")
    with torch.no_grad():
        policy.vlm.query_embed[0, 0] = 70_000.0
    folder, *_ = saved(policy=policy)
    beyond = "'vlm.query_embed' holds numbers beyond the largest of float16, 65504"
    with pytest.raises(CheckpointError, match=beyond):
        checkpoint.load_parts(folder, dtype=torch.float16)
    with pytest.raises(CheckpointError, match=beyond):
        saved(name="half", policy=policy, dtype="float16")
    assert checkpoint.load_parts(folder, dtype=torch.bfloat16).vlm is not None


def test_a_tensor_of_integers_is_not_written_as_floats(tmp_path):
    for name, numbers in (("a", torch.ones(2, dtype=torch.int8)), ("b", torch.ones(2, dtype=torch.bool))):
        with pytest.raises(CheckpointError, match=rf"tensor '{name}' is of torch"):
            weights.write_stream(tmp_path / "x", {name: (2,)}, torch.float32, [(name, numbers)])
    assert list(tmp_path.iterdir()) == []


def test_the_id_names_the_weights(saved, make_policy):
    _, policy, first = saved(name="a")
    _, _, same = saved(name="b", policy=policy)
    with torch.no_grad():
        policy.vlm.query_embed.add_(1.0)
    _, _, other = saved(name="c", policy=policy)
    assert first.checkpoint_id == same.checkpoint_id != other.checkpoint_id


def test_the_id_also_names_how_the_weights_are_used(saved):
    _, _, manifest = saved()
    config = dataclasses.replace(manifest.config, text_cache="shared")
    others = [
        dataclasses.replace(manifest, config=config),
        dataclasses.replace(manifest, expert_recipe=recipe("dino_crop", 32)),
        dataclasses.replace(manifest, statistics=None),
        dataclasses.replace(manifest, stage="base"),
    ]
    assert len({m.checkpoint_id for m in (manifest, *others)}) == 5


def test_a_manifest_from_before_keeps_its_id(saved):
    folder, _, manifest = saved()
    path = folder / "manifest.json"
    values = json.loads(path.read_text())
    assert read_manifest(folder).checkpoint_id == manifest.checkpoint_id == values["checkpoint_id"]
    del values["id_of"]
    path.write_text(json.dumps(values))
    weights_alone = hashlib.sha256(f"{manifest.weights_sha256}:".encode()).hexdigest()[:16]
    assert read_manifest(folder).checkpoint_id == weights_alone
    path.write_text(json.dumps(values | {"id_of": 3}))
    with pytest.raises(CheckpointError, match="id_of 3"):
        read_manifest(folder)


@pytest.mark.parametrize("folder", sorted(SHIPPED.glob("nano-*")), ids=lambda folder: folder.name)
def test_a_shipped_checkpoint_has_the_id_that_its_manifest_says(folder):
    assert read_manifest(folder).checkpoint_id == json.loads((folder / "manifest.json").read_text())["checkpoint_id"]


def test_the_manifest_tells_what_a_user_needs(saved):
    folder, _policy, _manifest = saved()
    read = read_manifest(folder)
    assert (read.preset, read.stage, read.views) == ("tiny", "expert", ("primary",))
    assert (read.horizon, read.dt_s, read.n_queries, read.latent_dim, read.state_dim) == (4, 0.2, 4, 24, 8)
    assert read.statistics == STATISTICS
    assert read.parity["expert_attention"] == "block_causal"


# ---- what is refused ----------------------------------------------------------------------------------


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        checkpoint.load_policy(tmp_path / "nowhere")


def test_a_file_in_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="is a file"):
        checkpoint.load_policy(tmp_path / "model.pt")


def test_a_missing_manifest_is_named(saved):
    folder = saved()[0]
    (folder / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"manifest.json is missing"):
        checkpoint.load_policy(folder)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[]", b'{"kind": "dataset"}'])
def test_a_manifest_of_another_kind_is_refused(saved, content):
    folder = saved()[0]
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"manifest.json"):
        checkpoint.load_policy(folder)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m.update(format=99), "format 99"),
        (lambda m: m.pop("statistics"), "lacks or garbles"),
        (lambda m: m.update(stage="champion"), "champion"),
        (lambda m: m["config"].update(n_queries="many"), "n_queries='many'; expected a whole number"),
        (lambda m: m["config"].update(views=[]), "views is empty"),
        (lambda m: m.update(weights_sha256=3), "weights_sha256 is 3; expected text"),
        (lambda m: m.update(base_id=["a"]), r"base_id is \['a'\]; expected text or null"),
        (lambda m: m["config"].pop("film"), "incomplete"),
        (lambda m: m["image_recipes"]["vlm"].pop("steps"), "image recipe"),
        (lambda m: m["statistics"]["action"].pop("q01"), "q01"),
    ],
)
def test_a_garbled_manifest_is_refused(saved, edit, message):
    folder = saved()[0]
    edit_manifest(folder, edit)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load_policy(folder)


def test_missing_weights_are_named(saved):
    folder = saved()[0]
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model.safetensors is missing"):
        checkpoint.load_policy(folder)


@pytest.mark.parametrize("keep", [0, 5, 300, -10])
def test_f17_truncated_weights_are_refused(saved, keep):
    folder = saved()[0]
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"truncated or no safetensors"):
        checkpoint.load_policy(folder)


def test_f17_pickled_weights_are_refused_unread(saved):
    folder = saved()[0]

    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the pickle ran",))

    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError, match="is a pickle"):
        checkpoint.load_policy(folder)
    torch.save({"a": torch.ones(1)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="is a pickle"):
        checkpoint.load_policy(folder)


def test_f17_changed_weights_do_not_match_the_hash(saved):
    folder = saved()[0]
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match="sha256"):
        checkpoint.load_policy(folder)


def test_a_missing_tensor_is_named_with_its_shape(saved):
    folder = saved()[0]
    rewrite(folder, lambda t: t.pop("vlm.query_embed"))
    with pytest.raises(CheckpointError, match=r"lacks tensor 'vlm.query_embed'.*\(4, 24\)"):
        checkpoint.load_policy(folder)


@pytest.mark.parametrize("name", ["vlm.extra", "strange"])
def test_f17_an_unknown_tensor_is_named(saved, name):
    folder = saved()[0]
    rewrite(folder, lambda t: t.update({name: torch.ones(1)}))
    with pytest.raises(CheckpointError, match=f"unknown tensor '{name}'"):
        checkpoint.load_policy(folder)


def test_a_wrong_shape_is_named_with_found_and_expected(saved):
    folder = saved()[0]
    rewrite(folder, lambda t: t.update({"vlm.query_embed": torch.ones(5, 24)}))
    with pytest.raises(CheckpointError, match=r"'vlm.query_embed' has shape \(5, 24\); expected \(4, 24\)"):
        checkpoint.load_policy(folder)


def test_weights_that_are_not_numbers_are_refused(saved):
    folder = saved()[0]
    rewrite(folder, lambda t: t["vlm.query_embed"].fill_(float("nan")))
    with pytest.raises(CheckpointError, match=r"'vlm.query_embed' holds NaN"):
        checkpoint.load_policy(folder)


def test_weights_of_another_number_type_are_refused(saved):
    folder = saved()[0]
    rewrite(folder, lambda t: t.update({"vlm.query_embed": torch.ones(4, 24, dtype=torch.int64)}))
    with pytest.raises(CheckpointError, match=r"tensor 'vlm.query_embed' is of no type of .*; expected floats"):
        checkpoint.load_policy(folder)


def mapped_resident(path: Path) -> int:
    """Bytes of a file that are resident through this process's mappings of it."""
    found, of_file = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        name, value = line.split(maxsplit=1)
        if not name.endswith(":"):
            of_file = value.endswith(str(path))
        elif of_file and name == "Rss:":
            found += 1024 * int(value.split()[0])
    return found


def test_loading_keeps_nothing_of_the_file_in_memory_beside_the_tensor(tmp_path):
    """64 MB on disk become 32 MB; a mapping of the file would stay resident as long as it is open, and make them 96.
    Between the two there is room for what other threads of the test process allocate meanwhile."""
    numbers = torch.arange(1 << 24, dtype=torch.float32).view(1 << 12, -1)
    weights.write(tmp_path / "w.safetensors", {"a": torch.ones(3), "w": numbers})
    file = weights.WeightFile(tmp_path / "w.safetensors")
    before = resident()["VmRSS"]
    loaded = file.load("w", torch.bfloat16, "cpu")
    assert resident()["VmRSS"] - before < loaded.nbytes + (48 << 20)
    assert mapped_resident(file.path) < 1 << 20
    assert torch.equal(loaded, numbers.bfloat16())


def test_a_missing_or_foreign_tokenizer_is_refused(saved):
    folder = saved()[0]
    other = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer.json is missing"):
        checkpoint.load_policy(folder)
    other["added_tokens"] = other["added_tokens"][:-1]
    (folder / "tokenizer.json").write_text(json.dumps(other))
    with pytest.raises(CheckpointError, match=r"expected .* and 4; restore"):
        checkpoint.load_policy(folder)


def test_a_policy_is_not_saved_under_the_wrong_manifest_or_dtype(make_policy, tokenizer, tmp_path):
    policy = make_policy("expert")
    manifest = new_manifest(policy.config, "generalist", STATISTICS)
    with pytest.raises(CheckpointError, match="manifest of stage 'generalist'"):
        checkpoint.save(tmp_path, policy, tokenizer, manifest)
    with pytest.raises(CheckpointError, match="storage dtype"):
        checkpoint.save(tmp_path, policy, tokenizer, manifest, dtype="int8")
    with pytest.raises(CheckpointError, match="champion"):
        new_manifest(policy.config, "champion", None)


def test_a_chain_of_bases_that_never_ends_is_refused(saved):
    base, policy, _ = saved("expert", "base")
    folder, _, _ = saved("expert", "top", policy=policy, base=base)
    edit_manifest(folder, lambda m: m.update(base_path="."))
    with pytest.raises(CheckpointError, match="nest deeper"):
        checkpoint.load_policy(folder)

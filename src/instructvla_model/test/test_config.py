"""Configuration: presets, validation, round trip through JSON."""

import dataclasses
import json
import math

import pytest

from instructvla_model.config import ConfigError, policy_config_from_dict
from instructvla_model.presets import PRESETS, in_regime, preset


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_survives_json_unchanged(name):
    config = preset(name)
    assert policy_config_from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_an_unknown_preset_is_refused_with_the_known_names():
    with pytest.raises(ConfigError, match="nano"):
        preset("mega")


@pytest.mark.parametrize("name", ["vlm_recipe", "expert_recipe"])
def test_an_image_recipe_is_never_taken_silently(name):
    values = preset("nano").to_dict()
    assert values.pop(name) == "nano_area"
    with pytest.raises(ConfigError, match=name):
        policy_config_from_dict(values)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_the_paper_s_regime_is_what_our_own_presets_have(name):
    assert in_regime(preset(name), "paper") == preset(name)


def test_the_paper_s_regime_sees_the_whole_image_whatever_was_seen_before():
    config = in_regime(in_regime(preset("2b-libero"), "reference"), "paper")
    assert (config.vlm_recipe, config.expert_recipe) == ("siglip_squash", "dino_squash")


def test_nano_has_the_advertised_token_counts():
    config = preset("nano")
    assert config.vision.tokens_per_image == 49
    assert config.film.tokens_per_image == (14 // config.film.shuffle) ** 2
    assert config.n_prefix_tokens == config.film.tokens_per_image + 8 + 1


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("vision", {"image_size": 33}, "multiple of the patch"),
        ("vision", {"stem_layers": 3}, "logarithm"),
        ("vision", {"shuffle": 3}, "shuffle"),
        ("film", {"n_heads": 3}, "divisible by the heads"),
        ("film", {"n_blocks_used": 9}, "depth"),
        ("language", {"n_kv_heads": 3}, "key/value"),
        ("expert", {"attention": "full"}, "block_causal"),
        ("expert", {"head_widths": (1, 2)}, "three"),
        ("film", {"depth": -1}, "film.depth=-1; expected 1 or more"),
        ("language", {"n_layers": -1}, "language.n_layers=-1; expected 0 or more"),
        ("film", {"depth": "4"}, "film.depth='4'; expected a whole number"),
        ("film", {"depth": True}, "a whole number"),
        ("expert", {"state_dim": -1}, "0 or more"),
        ("expert", {"attention": 3}, "expected text"),
        ("flow", {"time_max": math.nan}, "time_max=nan; expected a finite number"),
        ("film", {"final_norm": 1}, "final_norm=1; expected true or false"),
    ],
)
def test_values_that_cannot_work_are_refused(part, change, message):
    config = preset("tiny")
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **change)})


@pytest.mark.parametrize("views", [(), ("",), ("a", "a")])
def test_views_that_are_none_nameless_or_twice_are_refused(views):
    with pytest.raises(ConfigError, match="view"):
        dataclasses.replace(preset("tiny"), views=views)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.update(colour=1), "unknown keys"),
        (lambda d: d["expert"].pop("dim"), "incomplete"),
        (lambda d: d.update(expert=3), "expected an object"),
    ],
)
def test_a_garbled_configuration_is_refused(edit, message):
    values = preset("tiny").to_dict()
    edit(values)
    with pytest.raises(ConfigError, match=message):
        policy_config_from_dict(values)


def test_a_configuration_that_is_no_object_is_refused():
    with pytest.raises(ConfigError, match="object"):
        policy_config_from_dict([1])

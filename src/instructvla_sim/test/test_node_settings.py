"""The simulator's settings refuse what would end in a traceback or in two cameras on one topic."""

from __future__ import annotations

import pytest

from instructvla_sim.nodes.settings import SimSettings, camera_info_topic, sim_settings


@pytest.mark.parametrize("name", ["primary_topic", "wrist_topic", "reasoning_topic"])
@pytest.mark.parametrize("topic", ["a b", "", "/left/", "//left", "/1st/image_raw", "/caméra/image_raw"])
def test_a_topic_that_is_no_name_is_refused_with_its_parameter(name: str, topic: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is .*expected letters, digits and _"):
        sim_settings({name: topic})


@pytest.mark.parametrize("topic", ["/left/image_raw", "image_raw", "~/image", "/a/b_1/c"])
def test_names_that_ros_accepts_are_accepted(topic: str) -> None:
    assert sim_settings({"primary_topic": topic}).primary_topic == topic


@pytest.mark.parametrize("wrist", ["/left/wrist", "/left/image_raw"])
def test_two_cameras_with_one_camera_info_are_refused(wrist: str) -> None:
    with pytest.raises(ValueError, match="both cameras would publish /left/camera_info"):
        sim_settings({"primary_topic": "/left/image_raw", "wrist_topic": wrist})
    settings = sim_settings({"primary_topic": "/left/image_raw", "wrist_topic": "/left/wrist/image_raw"})
    assert camera_info_topic(settings.wrist_topic) == "/left/wrist/camera_info"


def test_the_defaults_are_possible() -> None:
    assert sim_settings({}) == SimSettings()

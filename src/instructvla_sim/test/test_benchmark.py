"""The command that measures the demonstrator."""

from __future__ import annotations

import json

import pytest

from instructvla_sim import benchmark


def test_benchmark_prints_one_line_of_json_per_family(capsys: pytest.CaptureFixture[str]) -> None:
    code = benchmark.main(["--families", "pick", "--episodes", "2", "--first-seed", "40", "--size", "160", "120"])
    assert code == 0
    report = json.loads(capsys.readouterr().out)
    assert report["family"] == "pick"
    assert report["episodes"] == 2
    assert report["success"] == 1.0
    assert report["episodes_per_cpu_second"] > 0
    assert sum(int(v.split("/")[1]) for v in report["per_object"].values()) == 2

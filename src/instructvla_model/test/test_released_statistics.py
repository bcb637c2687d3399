"""Statistics of a released run: found beside it, read for one data set, refused when garbled."""

import json

import numpy as np
import pytest

from instructvla_model.manifest import CheckpointError
from instructvla_model.released.statistics import find_statistics, read_statistics

FIELD = {"q01": [-1.0, 0.0], "q99": [1.0, 0.0], "mask": [True, False]}


def write(folder, values):
    path = folder / "dataset_statistics.json"
    path.write_text(json.dumps(values))
    return path


def test_the_statistics_of_a_run_lie_above_its_checkpoints(tmp_path):
    path = write(tmp_path, {})
    assert find_statistics(tmp_path / "checkpoints" / "step.pt") == path
    assert find_statistics(tmp_path / "step.pt") is None
    path.unlink()
    assert find_statistics(tmp_path / "checkpoints" / "step.pt") is None


def test_one_data_set_needs_no_name_and_two_do(tmp_path):
    one = {"bridge": {"action": FIELD, "proprio": {"q01": [0.0], "q99": [2.0]}, "num_transitions": 5}}
    statistics = read_statistics(write(tmp_path, one))
    assert statistics.action.mask == (True, False)
    assert statistics.state is not None and statistics.state.mask == (True,)
    np.testing.assert_allclose(statistics.action.normalize(np.array([0.5, 0.7])), [0.5, 0.7])
    path = write(tmp_path, one | {"fractal": {"action": FIELD}})
    assert read_statistics(path, "fractal").state is None
    with pytest.raises(CheckpointError, match="expected the name of one"):
        read_statistics(path)
    with pytest.raises(CheckpointError, match="expected libero"):
        read_statistics(path, "libero")


@pytest.mark.parametrize("entry", [7, {}, {"action": {}}, {"action": {"q01": [1.0], "q99": [1.0, 2.0]}}])
def test_garbled_statistics_are_refused(tmp_path, entry):
    with pytest.raises(CheckpointError, match="'bridge'"):
        read_statistics(write(tmp_path, {"bridge": entry}))


def test_equal_quantiles_normalise_to_zero(tmp_path):
    still = {"action": {"q01": [1.0], "q99": [1.0], "min": [0.0], "max": [2.0]}}
    assert read_statistics(write(tmp_path, {"x": still})).action.normalize(np.array([1.5])) == 0.0

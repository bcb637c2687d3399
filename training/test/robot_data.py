"""Small data sets in the formats they are published in, written on the spot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from instructvla_ros.control.franka import FR3
from instructvla_ros.control.kinematics import JOINT_NAMES, NEUTRAL_RAD
from instructvla_training.data.formats.episode import ACTION_NAMES, ArrayImages, Episode, StateLayout
from instructvla_training.data.formats.lerobot_writer import write_lerobot
from instructvla_training.data.formats.tfrecord import serialize_example, write_records
from instructvla_training.data.formats.video import VideoWriter

MESSAGES = Path(__file__).parents[2] / "src/instructvla_msgs/msg"
INSTRUCTIONS = ("put the lemon in the bowl", "pick up the can")


def picture(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A smooth image whose brightness says which one it is; compression leaves it recognisable."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = 10 + 8 * (number % 28)
    image[..., 1] = np.linspace(40, 200, width).astype(np.uint8)
    image[: height // 2, :, 2] = 120
    return image


def which(image: np.ndarray) -> int:
    """The number of a `picture` (up to 28)."""
    return round((float(image[..., 0].mean()) - 10) / 8)


def poses(length: int, seed: int) -> np.ndarray:
    """(T, 8) states of a smooth movement: position in metres, roll-pitch-yaw, pad, opening that falls to 0."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 1, length)[:, None]
    state = np.zeros((length, 8), np.float32)
    state[:, :3] = np.array([0.25, 0.0, 0.15]) + t * rng.uniform(-0.1, 0.1, 3)
    state[:, 3:6] = t * rng.uniform(-0.3, 0.3, 3)
    state[:, 7] = (t[:, 0] < 0.5) * 0.9 + 0.05
    return state


def moves(state_TS: np.ndarray) -> np.ndarray:
    """(T, 7) actions that make the states: differences, and the opening of the step after."""
    after = np.concatenate([state_TS[1:], state_TS[-1:]])
    return np.column_stack([after[:, :6] - state_TS[:, :6], after[:, 7] > 0.5]).astype(np.float32)


def episode(
    number: int, length: int = 10, views: Sequence[str] = ("primary",), instruction: str | None = None
) -> Episode:
    state = poses(length, number)
    return Episode(
        file_path="made",
        episode_id=str(number),
        instruction=INSTRUCTIONS[number % 2] if instruction is None else instruction,
        state_TS=state,
        action_TA=moves(state),
        images={view: ArrayImages(np.stack([picture(step) for step in range(length)])) for view in views},
    )


def lerobot_v3(root: Path, episodes: int = 3, length: int = 10, fps: float = 5.0, **options: object) -> Path:
    write_lerobot(root, [episode(n, length + n) for n in range(episodes)], fps=fps, codec="h264", **options)
    return root


def lerobot_v2(root: Path, episodes: int = 3, length: int = 10, fps: int = 5) -> Path:
    """v2.1 as LeRobot wrote it: one parquet and one video file an episode; a wrist camera as PNG in the parquet."""
    tasks = {text: index for index, text in enumerate(INSTRUCTIONS)}
    lines = []
    for number in range(episodes):
        made = episode(number, length + number)
        rows = {
            "observation.state": pa.array(list(made.state_TS)),
            "action": pa.array(list(made.action_TA)),
            "observation.images.wrist": pa.array(
                [{"bytes": png(picture(step + 1)), "path": None} for step in range(len(made))]
            ),
            "timestamp": pa.array((np.arange(len(made)) / fps).astype(np.float32)),
            "frame_index": pa.array(np.arange(len(made))),
            "episode_index": pa.array(np.full(len(made), number)),
            "index": pa.array(np.arange(len(made))),
            "task_index": pa.array(np.full(len(made), tasks[made.instruction])),
        }
        path = root / f"data/chunk-000/episode_{number:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(rows), path)
        video = VideoWriter(
            root / f"videos/chunk-000/observation.images.front/episode_{number:06d}.mp4", fps, (48, 64), "h264"
        )
        for image in made.images["primary"]:
            video.append(image)
        video.close()
        lines.append({"episode_index": number, "tasks": [made.instruction], "length": len(made)})
    vector = {"dtype": "float32", "names": {"motors": list(StateLayout.RPY.value)}}
    info = {
        "codebase_version": "v2.1", "fps": fps, "chunks_size": 1000, "total_episodes": episodes,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": {
            "observation.state": vector | {"shape": [8]},
            "action": {"dtype": "float32", "shape": [7], "names": {"motors": list(ACTION_NAMES)}},
            "observation.images.front": {"dtype": "video", "shape": [48, 64, 3]},
            "observation.images.wrist": {"dtype": "image", "shape": [48, 64, 3]},
            "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        },
    }  # fmt: skip
    write_json(root / "meta/info.json", info)
    write_lines(root / "meta/episodes.jsonl", lines)
    write_lines(root / "meta/tasks.jsonl", [{"task_index": index, "task": text} for text, index in tasks.items()])
    return root


# ---- TFDS ---------------------------------------------------------------------------------------------


def tfds(
    root: Path, name: str, steps: dict, metadata: dict, examples: list[dict], shards: int = 2, version: str = "1.0.0",
    folder_name: str = "",
) -> Path:  # fmt: skip
    """A TFDS folder with ``examples`` dealt over shards; ``steps`` and ``metadata`` are features.json below them."""
    folder = root / (folder_name or name) / version
    folder.mkdir(parents=True)
    parts = [examples[number::shards] for number in range(shards)]
    for number, part in enumerate(parts):
        write_records(folder / f"{name}-train.tfrecord-{number:05d}-of-{shards:05d}", map(serialize_example, part))
    features = {
        "steps": {
            "pythonClassName": "tensorflow_datasets.core.features.dataset_feature.Dataset",
            "sequence": {"feature": group(steps)},
        },
        "episode_metadata": group(metadata),
    }
    write_json(folder / "features.json", group(features))
    lengths = [str(len(part)) for part in parts]
    splits = [
        {
            "name": "train",
            "shardLengths": lengths,
            "numBytes": "0",
            "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        }
    ]
    write_json(
        folder / "dataset_info.json", {"name": name, "version": version, "fileFormat": "tfrecord", "splits": splits}
    )
    return folder.parent


def group(features: dict) -> dict:
    kind = "tensorflow_datasets.core.features.features_dict.FeaturesDict"
    return {"pythonClassName": kind, "featuresDict": {"features": features}}


def tensor(*shape: int, dtype: str = "float32") -> dict:
    sizes = {"dimensions": [str(size) for size in shape]} if shape else {}
    kind = "tensorflow_datasets.core.features.tensor_feature.Tensor"
    return {"pythonClassName": kind, "tensor": {"shape": sizes, "dtype": dtype, "encoding": "none"}}


def image_feature(encoding: str = "jpeg") -> dict:
    kind = "tensorflow_datasets.core.features.image_feature.Image"
    return {
        "pythonClassName": kind,
        "image": {"shape": {"dimensions": ["48", "64", "3"]}, "dtype": "uint8", "encodingFormat": encoding},
    }


TEXT = {"pythonClassName": "tensorflow_datasets.core.features.text_feature.Text", "text": {}}


def bridge(root: Path, episodes: int = 4, length: int = 12) -> Path:
    """bridge_dataset as released: 7-D state, 7-D action with a continuous gripper, first action all zero."""
    steps = {
        "action": tensor(7), "language_instruction": TEXT, "is_first": tensor(dtype="bool"),
        "observation": group({"state": tensor(7), "image_0": image_feature()}),
    }  # fmt: skip
    metadata = {"file_path": TEXT, "episode_id": tensor(dtype="int32")}
    examples = []
    for number in range(episodes):
        made = episode(number, length)
        state = np.delete(made.state_TS, 6, axis=1)
        action = made.action_TA.copy()
        action[0] = 0.0
        action[length // 2 - 1, 6] = 0.5  # on its way
        examples.append(
            {
                "steps/action": action, "steps/observation/state": state,
                "steps/language_instruction": [made.instruction.encode()] * length,
                "steps/observation/image_0": [jpeg(picture(step)) for step in range(length)],
                "steps/is_first": np.arange(length) == 0,
                "episode_metadata/file_path": [b"/data/raw/traj_group0.npy"],
                "episode_metadata/episode_id": np.array([number + 100]),
            }
        )  # fmt: skip
    return tfds(root, "bridge_dataset", steps, metadata, examples)


def fractal(root: Path, episodes: int = 2, length: int = 8) -> Path:
    """fractal20220817_data: nested action, relative gripper command, pose as a quaternion."""
    commands = {"world_vector": tensor(3), "rotation_delta": tensor(3), "gripper_closedness_action": tensor(1)}
    steps = {
        "action": group(commands),
        "observation": group(
            {
                "image": image_feature(), "natural_language_instruction": tensor(dtype="string"),
                "base_pose_tool_reached": tensor(7), "gripper_closed": tensor(1),
            }
        ),
    }  # fmt: skip
    examples = []
    for number in range(episodes):
        made = episode(number, length)
        command = np.zeros((length, 1), np.float32)
        command[length // 2] = 1.0  # close
        quaternion = np.tile([0.0, 0.0, 0.0, 1.0], (length, 1))
        examples.append(
            {
                "steps/action/world_vector": made.action_TA[:, :3],
                "steps/action/rotation_delta": made.action_TA[:, 3:6],
                "steps/action/gripper_closedness_action": command,
                "steps/observation/base_pose_tool_reached": np.column_stack([made.state_TS[:, :3], quaternion]),
                "steps/observation/gripper_closed": (np.arange(length) > length // 2).astype(np.float32),
                "steps/observation/natural_language_instruction": [made.instruction.encode()] * length,
                "steps/observation/image": [jpeg(picture(step)) for step in range(length)],
            }
        )  # fmt: skip
    return tfds(root, "fractal20220817_data", steps, {}, examples, shards=1, version="0.1.0")


def libero(root: Path, suite: str = "goal", episodes: int = 2, length: int = 6) -> Path:
    """libero_<suite>_no_noops as released, by another name inside: two cameras, gripper action -1 open .. 1 closed, two
    finger positions."""
    steps = {
        "action": tensor(7), "language_instruction": TEXT,
        "observation": group({"state": tensor(8), "image": image_feature(), "wrist_image": image_feature("png")}),
    }  # fmt: skip
    examples = []
    for number in range(episodes):
        made = episode(number, length)
        action, state = made.action_TA.copy(), made.state_TS.copy()
        action[:, 6] = 1.0 - 2.0 * action[:, 6]
        state[:, 6], state[:, 7] = 0.04, -0.04
        examples.append(
            {
                "steps/action": action, "steps/observation/state": state,
                "steps/language_instruction": [made.instruction.encode()] * length,
                "steps/observation/image": [jpeg(picture(step)) for step in range(length)],
                "steps/observation/wrist_image": [png(picture(step + 1)) for step in range(length)],
                "episode_metadata/file_path": [b"goal/demo.hdf5"],
            }
        )  # fmt: skip
    inside = "liber_o10" if suite == "10" else f"libero_{suite}"
    return tfds(root, inside, steps, {"file_path": TEXT}, examples, shards=1, folder_name=f"libero_{suite}_no_noops")


# ---- helpers ------------------------------------------------------------------------------------------


def jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


# ---- bags ---------------------------------------------------------------------------------------------

FRANKA = {"joint_names": (*FR3.joint_names, FR3.fingers.joint), "start_rad": FR3.home_rad}
"""Of a `bag` of another arm."""


def bag(
    folder: Path, runs: Sequence[tuple[int, str, int]] = ((1, INSTRUCTIONS[0], 8),), raw: bool = False,
    executed: bool = True, joint_names: Sequence[str] = (*JOINT_NAMES, "gripper", "left_finger", "right_finger"),
    start_rad: np.ndarray = NEUTRAL_RAD,
) -> Path:  # fmt: skip
    """A rosbag2 recording of the graph: (instruction id, text, steps) one after the other, 5 Hz steps, 10 Hz images."""
    store = get_typestore(Stores.ROS2_JAZZY)
    folder.parent.mkdir(parents=True, exist_ok=True)
    for name in ("EndEffectorDelta", "Reasoning"):
        store.register(get_types_from_msg((MESSAGES / f"{name}.msg").read_text(), f"instructvla_msgs/msg/{name}"))
    kinds = store.types
    image_kind = "sensor_msgs/msg/Image" if raw else "sensor_msgs/msg/CompressedImage"
    topics = {
        "/camera/camera/color/image_raw" + ("" if raw else "/compressed"): image_kind,
        "/wx250s/joint_states": "sensor_msgs/msg/JointState",
        "/instructvla/reasoning": "instructvla_msgs/msg/Reasoning",
        "/instructvla/ee_delta": "instructvla_msgs/msg/EndEffectorDelta",
    }

    def header(time_s: float) -> Any:
        stamp = kinds["builtin_interfaces/msg/Time"](sec=int(time_s), nanosec=round(time_s % 1 * 1e9))
        return kinds["std_msgs/msg/Header"](stamp=stamp, frame_id="wx250s/base_link")

    def vector(values: Sequence[float]) -> Any:
        return kinds["geometry_msgs/msg/Vector3"](*map(float, values))

    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        places = {topic: writer.add_connection(topic, kind, typestore=store) for topic, kind in topics.items()}
        image_topic = next(iter(topics))

        def write(topic: str, time_s: float, message: Any) -> None:
            data = store.serialize_cdr(message, topics[topic])
            writer.write(places[topic], round(time_s * 1e9), data)

        time_s, tick = 1000.0, 0
        for number, text, steps in runs:
            reasoning = kinds[topics["/instructvla/reasoning"]]
            if executed:
                said = reasoning(header(time_s), number, 1, text, "", False, 0, 0.0, 0.0)
                write("/instructvla/reasoning", time_s, said)
            for step in range(steps):
                for half in (0.0, 0.1):
                    now_s = time_s + 0.2 * step + half
                    image = picture(step)
                    if raw:
                        height, width = image.shape[:2]
                        message = kinds[image_kind](
                            header(now_s), height, width, "bgr8", 0, width * 3, image[..., ::-1].ravel()
                        )
                    else:
                        message = kinds[image_kind](header(now_s), "jpeg", np.frombuffer(jpeg(image), np.uint8))
                    write(image_topic, now_s + 0.004, message)
                    joints = np.append(start_rad + 0.01 * tick, [0.0, 0.03, -0.03])
                    values = joints[: len(joint_names)]
                    state = kinds["sensor_msgs/msg/JointState"](header(now_s), [*joint_names], values, values, values)
                    write("/wx250s/joint_states", now_s + 0.002, state)
                    tick += 1
                if not executed:
                    continue
                begin_s = time_s + 0.2 * step + 0.05
                delta = kinds[topics["/instructvla/ee_delta"]](
                    header(begin_s), number, 1, step, 0.2, vector((0.01 * step, 0, 0)), vector((0, 0, 0.1)), 1.0, False
                )
                write("/instructvla/ee_delta", begin_s + 0.001, delta)
            time_s += 0.2 * steps + 2.0
    return folder

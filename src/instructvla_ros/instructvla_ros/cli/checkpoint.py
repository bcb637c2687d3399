"""instructvla checkpoint: bring the authors' released files in, write them back, and look into a checkpoint.

The work is done by `instructvla_model.released`; PyTorch is imported only when a sub-command runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `checkpoint import | export | inspect`."""
    parser = commands.add_parser("checkpoint", help="import released files, export them again, inspect a checkpoint")
    actions = parser.add_subparsers(dest="action", required=True, metavar="action")
    _add_import(actions)
    export = actions.add_parser("export", help="write a checkpoint in the layout of the released files")
    export.add_argument("folder", type=Path, help="checkpoint folder")
    export.add_argument("out", type=Path, help="file or folder to write; must not exist")
    export.add_argument("--form", choices=("pt", "eagle", "peft"), default="pt", help="one file, backbone or adapters")
    export.set_defaults(run=run_export)
    inspect = actions.add_parser("inspect", help="say what a checkpoint folder is")
    inspect.add_argument("folder", type=Path, help="checkpoint folder")
    inspect.add_argument(
        "--tensors", action="store_true", help="list every tensor with its shape, and those that an import left out"
    )
    inspect.set_defaults(run=run_inspect)


def _add_import(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser("import", help="make a checkpoint folder of released files")
    parser.add_argument("source", type=Path, help="released .pt file, or the folder of Eagle2-2B")
    parser.add_argument("out", type=Path, help="checkpoint folder to write; must not exist")
    parser.add_argument(
        "--preset", default="2b", help="configuration with what no tensor tells: 2b, 2b-state, 2b-libero or another"
    )
    parser.add_argument("--backbone", type=Path, metavar="DIR", help="Eagle2-2B's folder: tokenizer and config.json")
    parser.add_argument(
        "--statistics", type=Path, metavar="FILE", help="dataset_statistics.json; default: the one of the run"
    )
    parser.add_argument("--dataset", metavar="NAME", help="whose statistics, if the file has several")
    parser.add_argument(
        "--regime",
        choices=("reference", "paper"),
        help="the released code's values or the paper's; default: reference for a policy, paper for a bare backbone",
    )
    parser.add_argument(
        "--adapter", action="append", default=[], metavar="NAME=DIR", help="peft folder to put onto an unloaded stage 1"
    )
    parser.add_argument("--adapter-names", metavar="A,B", help="names for the adapters 0, 1 of a stage 2 file")
    parser.add_argument(
        "--dinov2", type=Path, metavar="FILE",
        help="state dict of a DINOv2 with registers: gives a bare backbone an action expert to train, its vision tower "
        "from this file and the rest fresh",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of what comes from no file; default: 0")
    parser.add_argument("--views", metavar="A,B", help="cameras; default: the preset's")
    parser.add_argument("--dt", type=float, metavar="S", help="seconds of an action step; default: the preset's")
    parser.add_argument("--drop-unread", action="store_true", help="leave out vision blocks that nothing reads")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="number type of the new file; default: the source's"
    )
    parser.set_defaults(run=run_import)


def _names(text: str | None) -> tuple[str, ...] | None:
    return tuple(part.strip() for part in text.split(",")) if text is not None else None


def _adapters(pairs: Sequence[str]) -> dict[str, Path]:
    split = [pair.partition("=") for pair in pairs]
    for name, equals, folder in split:
        if not (name.isidentifier() and equals and folder):
            raise ValueError(f"--adapter {name}{equals}{folder}; expected NAME=DIR, for example action=ckpt/adapter")
    return {name: Path(folder) for name, _, folder in split}


def run_import(arguments: argparse.Namespace) -> int:
    """Import and print what was found."""
    from instructvla_model.presets import preset
    from instructvla_model.released.importing import ImportOptions, describe, import_checkpoint
    from instructvla_model.released.statistics import choose_dataset, find_statistics, read_statistics

    path = arguments.statistics or find_statistics(arguments.source)
    if path is None and arguments.dataset is not None:
        raise ValueError(f"--dataset {arguments.dataset} without statistics; give their file (--statistics FILE)")
    dataset = choose_dataset(path, arguments.dataset) if path else None
    statistics = read_statistics(path, dataset) if path else None
    options = ImportOptions(
        regime=arguments.regime,
        dtype=arguments.dtype,
        adapters=_adapters(arguments.adapter),
        adapter_names=_names(arguments.adapter_names),
        drop_unread=arguments.drop_unread,
        views=_names(arguments.views),
        dt_s=arguments.dt,
        dataset=dataset,
        dinov2=arguments.dinov2,
        seed=arguments.seed,
    )
    imported = import_checkpoint(
        arguments.source, arguments.out, preset(arguments.preset), arguments.backbone, statistics, options
    )
    of = f"of {dataset}, {path}" if path else "none: this checkpoint cannot act"
    _print([*describe(imported), ("statistics", of)])
    return 0


def run_export(arguments: argparse.Namespace) -> int:
    """Export and print the files."""
    from instructvla_model.released.exporting import export_checkpoint

    for path in export_checkpoint(arguments.folder, arguments.out, arguments.form):
        print(path)
    return 0


def run_inspect(arguments: argparse.Namespace) -> int:
    """Print what the manifest and the weights say; the weights' hash is checked."""
    from instructvla_model.checkpoint import open_files
    from instructvla_model.released.about import describe_manifest, left_out

    files, manifest = open_files(arguments.folder)
    sizes = {name: files[name].size(name) for name in sorted(files)}
    rows = [
        *describe_manifest(manifest, sizes),
        ("statistics", "yes" if manifest.statistics else "none: this checkpoint cannot act"),
        ("weights", f"{sum(sizes.values()):,} numbers in {len(sizes)} tensors, {manifest.storage_dtype}"),
        ("base", f"{manifest.base_id} at {manifest.base_path}" if manifest.base_id else "none"),
    ]
    _print(rows)
    if arguments.tensors:
        for name in sizes:
            print(f"{name:80s} {files[name].shape(name)}")
        for names in left_out(manifest).values():
            for name in names:
                print(f"{name:80s} left out")
    return 0


def _print(rows: Sequence[tuple[str, str]]) -> None:
    for label, text in rows:
        print(f"{label:20s} {text}")

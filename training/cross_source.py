"""How weights carry over to data of other sources: ``python -m training.cross_source CONFIG --store DIR``.

Writes configurations that leave out one source each, that know one source only, and that keep a share of the
labels, and ``commands.sh``, which trains, evaluates and compares them all. Anatomy without images is
kept: it is of no source.
"""

import argparse
import copy
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from BoneSAMLib.errors import BoneSAMError
from training.configuration import read_config
from training.experiment_script import ExperimentScript

KINDS = ("without", "only", "labels")
SHARES = (0.1, 0.25, 0.5, 1.0)


def sources_of(store: Path) -> list[str]:
    """The sources of annotated images in the store's training split.

    Raises:
        BoneSAMError: there are none.
    """
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(store.glob("*.json"))]
    found = {row["source"] for row in rows if row.get("kind") == "image" and row.get("split") == "train"}
    if not found:
        raise BoneSAMError(f"There are no annotated scans of the train split in '{store}'.")
    return sorted(found)


def variants(raw: dict[str, Any], sources: Sequence[str], kinds: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By name: the configuration with some sources of images, or a share of the labels, left out."""
    found = {}
    if "without" in kinds and len(sources) > 1:
        for source in sources:
            found[f"without-{source}"] = _only(raw, sources, [s for s in sources if s != source])
    if "only" in kinds:
        found |= {f"only-{source}": _only(raw, sources, [source]) for source in sources}
    if "labels" in kinds:
        for share in SHARES:
            variant = copy.deepcopy(raw)
            variant["supervision"] = {**(raw.get("supervision") or {}), "labelled": share}
            found[f"labels-{share:g}"] = variant
    return found


def _only(raw: dict[str, Any], sources: Sequence[str], kept: Sequence[str]) -> dict[str, Any]:
    variant = copy.deepcopy(raw)
    for phase in variant["phases"].values():
        mixture = phase.setdefault("mixture", {})
        weights = mixture.get("sources") or {}
        # A source that is not named would be drawn as often as any.
        mixture["sources"] = {
            source: float(weights.get(source, 1.0)) if source in kept else 0.0 for source in sources
        }
    return variant


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.cross_source", description=__doc__.split("\n\n")[1]
    )
    parser.add_argument("config", type=Path, help="YAML file, see training/configs")
    parser.add_argument("--store", type=Path, required=True, help="training store")
    parser.add_argument("--data", type=Path, required=True, help="folder of the annotated scans")
    parser.add_argument("--split", default="validation", choices=("validation", "test"))
    parser.add_argument("--kinds", default="without,only", help=f"some of {', '.join(KINDS)}")
    parser.add_argument("--minutes", type=float, help="of each training, instead of the configured length")
    parser.add_argument("--out", type=Path, default=Path("out/cross-source"))
    options = parser.parse_args(arguments)
    try:
        kinds = options.kinds.split(",")
        unknown = [kind for kind in kinds if kind not in KINDS]
        if unknown:
            raise BoneSAMError(f"Unknown kind '{unknown[0]}': use some of {', '.join(KINDS)}.")
        raw = _read(options.config, options.minutes)
        found = variants(raw, sources_of(options.store), kinds)
        evaluation = f"--split {options.split} --box-only --attention on"
        script = ExperimentScript(options.out, options.store, options.data, evaluation)
        for name, variant in found.items():
            script.train(name, variant)
        for kind in KINDS:
            chosen = [name for name in found if name.startswith(f"{kind}-")]
            if len(chosen) > 1:
                script.compare(kind, {name.removeprefix("labels-"): name for name in chosen})
        print(f"{script.count} trainings: sh {script.write()}")
    except BoneSAMError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _read(path: Path, minutes: float | None) -> dict[str, Any]:
    """The configuration as written, with its phases stretched to so many minutes together."""
    length = read_config(path).length
    raw: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    if minutes is not None:
        for phase in raw["phases"].values():
            phase["minutes"] = (phase.pop("steps", 0) or phase["minutes"]) * minutes / length
    return raw


if __name__ == "__main__":
    sys.exit(main())

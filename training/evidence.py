"""What each recipe is worth: ``python -m training.evidence --store DIR --data DIR --out DIR``.

Writes configurations and ``commands.sh``, which trains, measures and compares them:

* ``labels-0.1`` and ``labels-0.25``: every recipe for less than masks beside supervision alone at the same
  labels, and that again with another seed. All begin with the same weights, which have seen rendered anatomy
  and no scan, and take as many steps.
* ``parts``: low-rank adapters, all parameters, and all parameters from nothing, at a quarter of the labels.
* ``networks``: one stage, two stages, and the baselines, from nothing, with all labels, for as many minutes.

Short trainings of small images: they say little of how good weights become, and tell only large differences.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from BoneSAMLib.errors import BoneSAMError
from training.baselines.networks import NETWORKS
from training.experiment_script import ExperimentScript
from training.store import load_subjects

CONFIGS = Path(__file__).parent / "configs"
SHARES = (0.1, 0.25)
METHODS = (
    "mean-teacher",
    "two-decoders",
    "adversarial",
    "self-training",
    "image-labels",
    "boxes",
    "partial-labels",
)
RAMP_SHARE = 0.4  # of the steps, until the recipes' losses count fully
SECOND_STAGE = 1 / 3  # of the minutes, as in two-stage.yaml
SEEN = {"size": 128, "batch": 8, "rounds": 2, "echoes": 2}
SCANS = {"synthetic": 0.3, "unlabelled": 0.0, "all_bones": 0.3}
START = "start"


def anatomy(steps: int) -> dict[str, Any]:
    """The weights that all recipes begin with: rendered anatomy alone."""
    mixture = {**SCANS, "synthetic": 1.0}
    phase = {"steps": steps, **SEEN, "attention": 0.5, "mixture": mixture}
    return {"learning_rate": 2.5e-3, "ema": 0.995, "warmup_steps": 100, "phases": {"anatomy": phase}}


def supervised(share: float, steps: int) -> dict[str, Any]:
    """Masks of a share of the scans, and nothing else."""
    phase = {"steps": steps, **SEEN, "attention": 0.4, "mixture": SCANS}
    return {
        "learning_rate": 1.0e-3,
        "ema": 0.98,
        "warmup_steps": 20,
        "supervision": {"labelled": share},
        "phases": {"bones": phase},
    }


def with_method(method: str, share: float, steps: int) -> dict[str, Any]:
    """The same with what the recipe's own configuration does with the other scans."""
    raw = supervised(share, steps)
    recipe = yaml.safe_load((CONFIGS / f"{method}.yaml").read_text(encoding="utf-8"))["supervision"]
    raw["supervision"] = {**recipe, "labelled": share, "ramp_steps": max(1, round(RAMP_SHARE * steps))}
    return raw


def low_rank(share: float, steps: int) -> dict[str, Any]:
    """Of encoder and decoder only low-rank updates and the fusion learn; they stand a higher rate."""
    raw = supervised(share, steps)
    raw |= {"adapters": {"low_rank": 8}, "freeze_norms": True, "learning_rate": 2.0e-3}
    raw["phases"]["bones"]["learn"] = ["adapters", "depth_attention"]
    return raw


def one_stage(minutes: float) -> dict[str, Any]:
    """All parts from nothing, with all labels."""
    phase = {"minutes": minutes, **SEEN, "attention": 0.6, "mixture": SCANS}
    return {"learning_rate": 2.5e-3, "ema": 0.99, "warmup_steps": 50, "phases": {"bones": phase}}


def two_stage(minutes: float) -> dict[str, Any]:
    """The same in the two stages of two-stage.yaml."""
    raw = one_stage(minutes)
    phase = raw["phases"]["bones"]
    later = minutes * SECOND_STAGE
    first = {**phase, "minutes": minutes - later, "attention": 0.0, "learn": ["encoder", "prompts", "masks"]}
    second = {**phase, "minutes": later, "attention": 1.0, "learn": ["depth_attention", "fusion", "masks"]}
    raw["phases"] = {"slices": first, "volumes": second}
    return raw


def fill(script: ExperimentScript, steps: int, first_steps: int, minutes: float) -> None:
    """All experiments, in the order in which a run that is stopped tells most."""
    script.train(START, anatomy(first_steps), measured=False)
    for share in SHARES:
        names = {"supervised": f"supervised-{share:g}"}
        script.train(names["supervised"], supervised(share, steps), START)
        # What another seed changes is what a recipe must change by more.
        names["supervised again"] = f"supervised-again-{share:g}"
        script.train(names["supervised again"], {**supervised(share, steps), "seed": 1}, START)
        for method in METHODS:
            names[method] = f"{method}-{share:g}"
            script.train(names[method], with_method(method, share, steps), START)
        script.compare(f"labels-{share:g}", names)
    share = max(SHARES)
    script.train("low-rank", low_rank(share, steps), START)
    script.train("from-nothing", supervised(share, steps))
    parts = {
        "all parameters": f"supervised-{share:g}",
        "low-rank": "low-rank",
        "from nothing": "from-nothing",
    }
    script.compare("parts", parts)
    script.train("one-stage", one_stage(minutes))
    script.train("two-stage", two_stage(minutes))
    for network in NETWORKS:
        script.train_baseline(network, "one-stage")
    script.compare("networks", {name: name for name in ("one-stage", "two-stage", *NETWORKS)})


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.evidence", description=__doc__.split("\n\n")[0])
    parser.add_argument("--store", type=Path, required=True, help="training store")
    parser.add_argument("--data", type=Path, required=True, help="folder of the annotated scans")
    parser.add_argument("--out", type=Path, default=Path("out/evidence"))
    parser.add_argument("--steps", type=int, default=200, help="of each recipe")
    parser.add_argument("--first-steps", type=int, default=800, help="on anatomy, before the recipes")
    parser.add_argument("--minutes", type=float, default=6.0, help="of each network from nothing")
    parser.add_argument(
        "--evaluation",
        default="--split validation --box-only --attention on --most-cases 3 --most-bones 2",
        help="options of training.evaluate",
    )
    options = parser.parse_args(arguments)
    try:
        if not any(subject.kind == "labels" for subject in load_subjects(options.store, "train")):
            raise BoneSAMError(
                f"The store '{options.store}' has no anatomy for the recipes to begin with: see "
                "training.synthesis.anatomy."
            )
        script = ExperimentScript(options.out, options.store, options.data, options.evaluation)
        fill(script, options.steps, options.first_steps, options.minutes)
        print(f"{script.count} trainings: sh {script.write()}")
    except BoneSAMError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Renders the project's sample scans: ``python -m training.synthesis.sample --store DIR --out DIR``."""

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from training.synthesis.sample.scans import hand_xray, hip_ct, knee_mr
from training.synthesis.sample.writing import write_sample

# Each sample, and the bone of its prompt.
SAMPLES = ((hip_ct, "right femur"), (knee_mr, "right patella"), (hand_xray, "right third metacarpal bone"))


def main(
    store: Annotated[
        Path, typer.Option(help="Training store with the BodyParts3D v4 anatomies.", exists=True)
    ],
    out: Annotated[Path, typer.Option(help="Folder of the samples.")],
) -> None:
    """Render the sample scans, their truth and samples.json."""
    out.mkdir(parents=True, exist_ok=True)
    entries = {}
    for render_sample, prompt in SAMPLES:
        sample = render_sample(store)
        entries[sample.volume.name] = write_sample(sample, prompt, out)
        size = (out / entries[sample.volume.name]["image"]).stat().st_size
        print(f"{sample.volume.name}: shape {sample.volume.shape}, {size / 1e6:.2f} MB", flush=True)
    text = json.dumps(entries, indent=2)
    text = re.sub(
        r"\[[^]]*\]", lambda found: "[" + " ".join(found[0][1:-1].split()) + "]", text
    )  # boxes on one line
    (out / "samples.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)

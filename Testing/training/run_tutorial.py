"""The commands of training/README.md, as they stand there, one after another.

    python -m Testing.training.run_tutorial              all but the installation, in the checkout
    python -m Testing.training.run_tutorial --install    with it, for a fresh machine
    python -m Testing.training.run_tutorial --minutes 1  with less training; everything else as it stands

Prints what each command took. Stops at the first one that fails.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
TUTORIAL = CHECKOUT / "training" / "README.md"
TINY = "training/configs/tiny.yaml"


def commands(install=False):
    """The lines of all blocks marked as shell commands."""
    blocks = re.findall(r"^```sh( install)?\n(.*?)^```$", TUTORIAL.read_text(), re.M | re.S)
    return [line for kind, block in blocks if install or not kind for line in block.splitlines() if line]


def shortened(command, minutes, folder):
    """The same command with a copy of the tiny settings that trains for other minutes."""
    if TINY not in command or minutes is None:
        return command
    text = re.sub(r"minutes: .*", f"minutes: {minutes}", (CHECKOUT / TINY).read_text())
    (Path(folder) / "tiny.yaml").write_text(text)
    return command.replace(TINY, str(Path(folder) / "tiny.yaml"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--minutes", type=float)
    options = parser.parse_args()
    begun = time.monotonic()
    # One shell for all: the installation enters its environment.
    with tempfile.TemporaryDirectory() as folder:
        lines = []
        for command in commands(options.install):
            lines.append(f"echo; echo {_quoted('$ ' + command)}; begun=$SECONDS")
            lines.append(shortened(command, options.minutes, folder))
            lines.append('echo "took $((SECONDS - begun)) s"')
        bin_folder = Path(sys.executable).parent
        path = f'export PATH="{bin_folder}:$PATH"' if not options.install else ""
        done = subprocess.run(["bash", "-e", "-c", "\n".join([path, *lines])], cwd=CHECKOUT, check=False)
    print(f"\n{'All commands ran' if done.returncode == 0 else 'Stopped'}: {time.monotonic() - begun:.0f} s")
    return done.returncode


def _quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


if __name__ == "__main__":
    sys.exit(main())

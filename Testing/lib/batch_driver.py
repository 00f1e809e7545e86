"""The command line with a fake network, for tests that kill it; started with `python -m`."""

from functools import partial

from BoneSAMLib import batch
from BoneSAMLib.cli import main
from Testing.lib.bright_segmenter import BrightSegmenter

if __name__ == "__main__":
    batch.run_batch = partial(batch.run_batch, make_segmenter=BrightSegmenter)
    main()

"""The command line with a fake network, for tests that kill it; started with `python -m`.

BATCH_LARGEST_FILE limits the size of files in bytes, as a quota does.
"""

import os
from functools import partial

from BoneSAMLib import batch
from BoneSAMLib.cli import main
from Testing.lib.bright_segmenter import BrightSegmenter

if __name__ == "__main__":
    if "BATCH_LARGEST_FILE" in os.environ:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ["BATCH_LARGEST_FILE"]),) * 2)
    batch.run_batch = partial(batch.run_batch, make_segmenter=BrightSegmenter)
    main()

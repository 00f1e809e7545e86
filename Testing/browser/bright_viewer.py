"""`bonesam view` with a threshold for a network: python -m Testing.browser.bright_viewer"""

import sys

from BoneSAMLib.browser import visitor
from BoneSAMLib.cli import main

if __name__ == "__main__":
    visitor._MODULE = "Testing.browser.bright_visitor"
    sys.argv.insert(1, "view")
    main()

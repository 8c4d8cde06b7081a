"""The side-by-side comparison with the installed peers: the same as ``normkit bench``."""

import sys

from normkit.cli import main

sys.exit(main(["bench", *sys.argv[1:]]))

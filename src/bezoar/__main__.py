"""``python -m bezoar`` is the command ``bezoar``."""

import sys

from bezoar.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

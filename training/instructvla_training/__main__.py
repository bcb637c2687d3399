"""``python -m instructvla_training`` is ``instructvla-train``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())

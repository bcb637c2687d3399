"""python -m instructvla_ros.cli."""

import sys

from instructvla_ros.cli.main import main

sys.exit(main())

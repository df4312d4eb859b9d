"""``python -m modelport``."""

import sys

from modelport.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

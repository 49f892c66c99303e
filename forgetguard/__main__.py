"""`python -m forgetguard`: the command line."""

import sys

from forgetguard.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m tutelage`: the command, for launchers that start modules."""

import sys

from tutelage.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

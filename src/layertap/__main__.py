"""Entry point of the command line for `python -m layertap`."""

from __future__ import annotations

import sys

from layertap.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m numpy_gpt2` is the command `numpy-gpt2`."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())

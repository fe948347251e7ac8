"""Fetches a released model: `python download.py 124M` does what `python -m numpy_gpt2.download 124M` does."""

import sys

from numpy_gpt2.download import main

if __name__ == "__main__":
    sys.exit(main())

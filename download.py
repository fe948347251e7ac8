"""Fetches a released model: `python download.py gpt2` does what `numpy-gpt2 download gpt2` does."""

import sys

from numpy_gpt2.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["download", *sys.argv[1:]]))

"""The command line: `numpy-gpt2`, with one module for each subcommand.

`main` chooses the subcommand, and `process` sees to it that the command ends well. No other room knows argparse.
"""

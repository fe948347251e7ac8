"""How fast the project is, compared with what people would use instead: `python -m benchmarks --help`."""

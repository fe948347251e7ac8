"""How fast the project is, beside what people would use instead: `python -m benchmarks --help`."""

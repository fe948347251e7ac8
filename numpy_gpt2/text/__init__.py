"""What the tokenizer is built on: vocabulary files, long words, Unicode, and padding.

`merging` merges long words fast, `memo` remembers words, `pieces` cuts long texts, and `unicode` handles the letters
that came late to Unicode.
"""

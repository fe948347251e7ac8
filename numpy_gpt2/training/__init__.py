"""Learning: gradients written out by hand, AdamW, and a loop that uses all cores.

Read `gradients.py` first, beside `layers.py`: a backward function for each function there. `forward.py` is the forward
pass that they need, which keeps some of what it computes. `optimizer.py` makes a step of a gradient. `loop.py` puts
them together, and what it stands on is in `batches.py`, `parallel.py`, `lora.py`, `memory.py` and `checkpoints.py`.
`vocabulary.py` comes before all of that: it learns which tokens a text is written in.
"""

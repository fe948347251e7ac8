"""What the batched loop is built on: prompts, options, prefill, and text that streams.

`prompts` and `options` check what comes from outside, `prefill` reads the prompts, a `row` is one text of the batch,
and `detokenizer` and `stream` turn its tokens into characters and end it at a stop string.
"""

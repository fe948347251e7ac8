"""What the batched loop is built on: prompts, options, prefill, text that streams, and drafts.

`prompts` and `options` check what comes from outside, `prefill` reads the prompts, a `row` is one text of the batch,
and `detokenizer` and `stream` turn its tokens into characters and end it at a stop string. `half_words` completes the
word in which a prompt ends. `speculation` is the loop for several tokens a pass, with drafts from `lookup` or an
`assistant`.
"""

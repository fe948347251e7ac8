"""What a model makes of given texts: scores, hidden states, and the double-heads model.

`scoring` gives the probability of each token and the perplexity, `hidden_states` the vectors between the blocks, and
`double_heads` tells which of several texts is the right one.
"""

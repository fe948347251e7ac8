"""What knows about the machine: fast matrix products, threads, memory, GPUs and files.

A fast form stands here beside the plain form that it equals, so the mathematics need not know about it.
"""

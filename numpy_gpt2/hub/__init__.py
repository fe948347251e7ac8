"""The released models: names, folders on disk, and downloads.

`names` finds a model's folder, `download` knows the files of each model and where they come from, and `fetch` gets one
file from a server.
"""

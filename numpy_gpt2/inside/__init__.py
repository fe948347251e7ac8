"""Looking inside a model, and changing what is there: every array of a pass by name, tables, and pictures.

`watcher` gives each array of a pass a name, `recorder` keeps the arrays, and `patches` changes them. `tables` has
functions that return what there is to see, `pictures` draws that into an axis, `figures` makes whole pictures, and
`source` shows the code of a function.
"""

"""Looking inside a model, and changing what is there: every array of a pass by name, tables, and pictures.

`recorder` keeps what a pass computes, `tables` has functions that return what there is to see, `pictures` draws that
into an axis, `figures` makes whole pictures, `explanation` shows the arithmetic of one number, and `source` the code of
a function.
"""

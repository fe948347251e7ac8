"""Looking inside a model: a recorder of every array of a pass, tables, and pictures.

`recorder` keeps what a pass computes, `tables` has functions that return what there is to see, `pictures` draws that
into an axis, `figures` makes whole pictures, and `source` shows the code of a function.
"""

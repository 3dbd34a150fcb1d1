"""How one example is spoilt, by what it is: images, series, tables, tokens; and near copies.

Each function is given all examples first, to draw or measure what every planted one shares (a permutation, the spread
of a feature), and gives back what spoils a single one. The array that this is given stays as it is.
"""

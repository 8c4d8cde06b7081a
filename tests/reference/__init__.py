"""What normkit's results are compared with: wide arithmetic, data, and one description per operation.

Nothing here imitates the kernels: the references evaluate the textbook formula in two passes with 64 bits of
mantissa and a mean of about 120 bits. `operations.OPERATIONS` drives every test; a new operation adds one
description there and, where it is not a standardization over a set, one reference function.
"""

"""Differential privacy: what noise is drawn, what it costs, and what is left to spend.

Neighbouring data sets differ by one record, added or removed, wherever this package states an epsilon.

Drawing: :mod:`randomness`, :mod:`exact_table`, :mod:`discrete_gaussian`, :mod:`local_noise`,
:mod:`rounding_noise`, :mod:`poisson`, :mod:`clipping`. Accounting: :mod:`events`, :mod:`accounting`,
:mod:`calibration`, :mod:`budget`. How long a sum of both can be: :mod:`sum_norm`. Nothing here reads a clock, a file or
a socket; randomness arrives as an argument.
"""

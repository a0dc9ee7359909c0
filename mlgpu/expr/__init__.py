"""Elementwise expressions: traced from Python, differentiated, simplified, lowered to steps.

    graph.py       nodes, operators on them, tracing a function
    primitives.py  the table of primitives: dtype rule, NumPy form, CUDA form, derivative
    derivative.py  reverse-mode differentiation of a graph, giving another graph
    lower.py       a graph for given dtypes as a list of steps, casts and folding included
    cuda.py        the same steps as the source of one CUDA kernel
    numba.py       the same steps as the source of one loop, compiled where Numba is installed
"""

"""What qrs means, in NumPy: written from docs/numerics.md, not from the Rust code; imports nothing of qrs.

Formulas to check by eye, not to run fast. Everything is float32 or integer arithmetic in the order that the
numerics page fixes, so results are compared bit for bit; only `layers` is float64, for tolerances.
"""

"""What `lnsnum.strategies` and `lnsnum check` stand on: laws that every arithmetic on codes must keep.

Read `laws` first; `spans` knows the exact results, `pairs` the operands, `calling` and `foreign` how an implementation
is asked; `law_suite` tries the laws on it, `checking` is the door, `report` and `junit` say what came of it.
Of the strategies, `ranks` draws arrays, `code_strategies` codes and tensors, `float_strategies` floats;
`tie_strategies` and `matrix_strategies` draw what is hard to round and to add up.
"""

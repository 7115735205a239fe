"""What `lnsnum.strategies` and `lnsnum check` stand on: laws that every arithmetic on codes must keep.

Read `trial` first, what laws of every kind have in common; `calling` and `foreign` say how an implementation is asked,
`arguments` and `code_words` are shared, `kinds` is the door, `report` and `junit` say what came of it.
Of arithmetic, `laws` has the laws, `spans` knows the exact results, `pairs` the operands; `law_suite` tries them and
`checking` is the door. Of the strategies, `ranks` draws arrays, `code_strategies` codes and tensors,
`float_strategies` floats; `tie_strategies` and `matrix_strategies` draw what is hard to round and to add up.
"""

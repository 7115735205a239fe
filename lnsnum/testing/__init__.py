"""What `lnsnum.strategies` and `lnsnum check` stand on: laws that arithmetic on codes, and what leads to it, must keep.

Read `trial` first, what laws of every kind have in common; `calling` says how an implementation is asked,
`foreign`, `c_functions` and `verilog` how one that is not Python's; `arguments` and `code_words` are shared, `kinds` is
the door, `report` and `junit` say what came of it, `law_tests` makes tests of it.
Each kind has a file of laws, one of inputs, and its own door: `laws`, `pairs`, `law_suite` and `checking` arithmetic,
`conversion_laws`, `gaussian_laws`, `quantizer_laws`, `stochastic_laws` and what is named like them the others. `unary`
and `coded` are what these share; `spans` knows exact results of arithmetic, `positions` where floats lie,
`random_counts` how often chance goes up. Of sums, `sum_rounding` has what is stated of them, `accumulators` and
`exact_sums` know their totals, `sum_cases` has the rows, `sum_batches` asks for them, and `sum_laws` and `sum_checking`
are as of the others. Of the strategies, `ranks` draws arrays, `code_strategies` codes and tensors,
`float_strategies` floats; `tie_strategies` and `matrix_strategies` draw what is hard to round and to add up.
"""

"""The yardstick: what each kernel costs, beside its rivals, and beside what the machine could do at best.

`cases` tells what a measurement is, `timing` how it is taken; `kernels`, `arrays`, `products`, `uses`, `training`,
`files` and `startup` say what is measured, `rivals` against whom; `report` and `plots` show it.
"""

"""What `lnsnum convert`, `inspect`, `verify`, `diff` and `export` do, as functions: files in, reports or files out.

Everything goes block by block: no tensor is in memory as a whole. Nothing here prints. Read `sources` first, any file
as tensors; `conversion`, `inspection`, `verification`, `difference` and `export` are what the commands do.
"""

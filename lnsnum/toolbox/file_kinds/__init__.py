"""The kinds of files that tensors come in, each read, and one written, as a stream of blocks."""

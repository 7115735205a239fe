"""What `lnsnum export` writes: C source, memories for hardware, NumPy arrays; and what these have in common."""

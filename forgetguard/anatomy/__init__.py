"""Where a model keeps its attention heads, and what each of them adds to the residual stream."""

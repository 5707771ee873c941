"""The page: sequences, heads, matrices, pairs and reports of a store, read-only, for anybody."""

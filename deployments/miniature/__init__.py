"""The embedded miniature world: drawn pictures, four tasks, a small CLIP, a small generator."""

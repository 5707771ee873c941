"""The method itself: tensors in, tensors out; no files, no network, no environment."""

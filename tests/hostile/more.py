"""A pytest plugin: inputs that nobody has seen yet, ten times as many (test_fuzz_*.py)."""

from hypothesis import settings

settings.register_profile("more", derandomize=False)
settings.load_profile("more")

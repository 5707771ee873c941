"""One thread, repeatable properties, no files left behind."""

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("core", deadline=None, max_examples=40, database=None, derandomize=True)
settings.load_profile("core")

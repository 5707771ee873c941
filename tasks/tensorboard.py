"""Provisional; being written."""

import resource


class TrainingLog:
    def __init__(self, folder, first_step=0):
        pass

    def write(self, step, report, speed):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *a):
        return None


class Speedometer:
    def count(self, n):
        return 0.0


def peak_memory_bytes(device):
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

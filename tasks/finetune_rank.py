"""What each process of a distributed fine-tuning runs: `python -m tasks.finetune_rank JOB.json`.

torchrun's environment says which rank it is. The job's folder lies on this machine.
"""

import sys
from pathlib import Path

import torch
from torch import distributed

from gift_core.collectives import Ranks
from tasks.launch import write_event
from tasks.learning import Interrupted, LearningJob, learn

INTERRUPTED = 143
"""The exit code of a process that was asked to stop by SIGTERM."""


def run_rank(job: LearningJob) -> None:
    """Learn as one rank; rank 0's events go to the job's folder. Raises what `learn` raises."""
    on_gpu = torch.cuda.is_available()
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    ranks = Ranks(distributed.get_rank(), distributed.get_world_size())
    device = (
        torch.device("cuda", distributed.get_node_local_rank()) if on_gpu else torch.device("cpu")
    )
    if on_gpu:
        torch.cuda.set_device(device)
    for event in learn(job, ranks, device):
        if ranks.rank == 0:
            write_event(job.folder, event)
        elif event["kind"] == "note":
            print(event["text"])
    distributed.destroy_process_group()


if __name__ == "__main__":
    try:
        run_rank(LearningJob.model_validate_json(Path(sys.argv[1]).read_bytes()))
    except Interrupted as stopped:
        print(stopped)
        sys.exit(INTERRUPTED)

"""One scheduler of several: `python -m tests.faults.scheduler`, told on standard input what to run.

Each line is JSON: a sequence's settings and how many seconds to wait before it is started. Each
answer is a line of JSON: how much was computed and found, or the sentence that ended the run.
"""

import json
import sys
import time
from unittest.mock import patch

from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from flows.continual_sequence import continual_sequence
from gift_core.errors import GiftError
from tasks.sequence import SequenceSettings


def main() -> None:
    """Run what is asked until the input ends."""
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        sequence = SequenceSettings.model_validate(asked["sequence"])
        time.sleep(asked["wait"])
        try:
            with (
                temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),  # a second a stage
                patch("flows.turns._limited_to_one", return_value=False),  # they meet in the store
            ):
                result = continual_sequence(sequence=sequence)
            told = {"computed": result.num_computed, "found": result.num_reused, "error": None}
        except GiftError as error:
            told = {"computed": 0, "found": 0, "error": str(error)}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()

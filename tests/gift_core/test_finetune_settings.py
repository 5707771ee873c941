"""Settings of one task that contradict each other are refused."""

import pytest
from pydantic import ValidationError

from gift_core.finetune_settings import Averaging, FinetuneSettings
from gift_core.freezing import LowRank, Trained
from gift_core.methods import settings_for
from gift_core.objective import METHODS, Method

UPDATES = FinetuneSettings(trained=Trained(lora=LowRank(rank=2)))
RECKONS = {"wise-ft", "zscl", "ewc"}


@pytest.mark.parametrize("averaging", [Averaging(share=0.5), Averaging(ensemble_every=3)])
def test_low_rank_updates_have_no_average_of_weights(averaging: Averaging) -> None:
    with pytest.raises(ValidationError, match=r"trained\.lora: averaging reckons in whole weights"):
        FinetuneSettings(trained=UPDATES.trained, averaging=averaging)
    FinetuneSettings(averaging=averaging)


@pytest.mark.parametrize("method", METHODS)
def test_methods_that_reckon_in_weights_refuse_low_rank_updates(method: Method) -> None:
    settings = settings_for(method, UPDATES)
    if method in RECKONS:
        with pytest.raises(ValueError, match=r"trained\.lora: .* leave one of the two out"):
            settings.check_updates()
    else:
        settings.check_updates()


def test_a_warm_up_longer_than_the_run_is_refused() -> None:
    with pytest.raises(ValidationError, match="take a tenth of num_steps"):
        FinetuneSettings(num_steps=10, warmup_steps=11)

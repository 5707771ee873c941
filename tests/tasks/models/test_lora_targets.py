"""Which layers low-rank updates go to, and the refusals that need the model's shapes alone."""

import pytest

from gift_core.errors import SettingsError
from gift_core.freezing import LowRank, Trained
from tasks.models.lora_targets import check_lora, lora_targets
from tasks.models.shapes import shapes_of
from tests.tasks.models.test_lora import model_of
from tests.worlds import CLIP

NO_SUCH = Trained(lora=LowRank(target_modules=("q_proj", "query")))


def test_a_name_of_nothing_is_refused_with_those_there_are() -> None:
    with pytest.raises(SettingsError, match=r"query names no linear layer .* c_fc, c_proj, k_proj"):
        lora_targets(model_of("CLIP").clip, NO_SUCH)
    with pytest.raises(SettingsError, match=r"image tower has no linear layer"):
        lora_targets(model_of("residual network").clip, Trained(lora=LowRank()))


def test_a_model_is_looked_at_without_its_weights() -> None:
    clip = shapes_of(f"local-dir:{CLIP}")
    assert clip is not None
    assert {parameter.device.type for parameter in clip.parameters()} == {"meta"}
    with pytest.raises(SettingsError, match="query names no linear layer"):
        check_lora(f"local-dir:{CLIP}", NO_SUCH)
    check_lora(f"local-dir:{CLIP}", Trained(lora=LowRank(target_modules=("q_proj",))))


def test_nothing_is_said_of_a_model_whose_shapes_are_elsewhere() -> None:
    assert shapes_of("hf-hub:somebody/model") is None
    check_lora("hf-hub:somebody/model", NO_SUCH)

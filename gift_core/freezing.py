"""Which weights of a model learn a task: both towers, one of them, or low-rank updates of them."""

from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from gift_core.settings import Settings

if TYPE_CHECKING:
    from gift_core.features import DualEncoder

IMAGE_TOWER = "visual."
"""The image tower's parameters are named so, as open_clip names them; all others are the text's."""


class LowRank(Settings):
    """Low-rank updates in place of the weights: W + alpha / rank * B @ A, with only A and B learnt.

    B starts at zero, so the first step starts from the model as it was. Source: LoRA, arXiv
    2106.09685.
    """

    rank: int = Field(default=8, ge=1, le=4096, description="Rows of A and columns of B, a number")
    alpha: float = Field(
        default=16.0,
        gt=0.0,
        le=1e6,
        description="The update is multiplied by alpha / rank, no unit",
    )
    target_modules: tuple[str, ...] = Field(
        default=(),
        description="Ends of the names of the linear layers to update, such as q_proj, v_proj, "
        "c_fc; none: every linear layer of the towers that learn",
    )

    @model_validator(mode="after")
    def _names_are_names(self) -> Self:
        if not all(name.strip(".") for name in self.target_modules):
            raise ValueError("target_modules: an empty name fits everything; leave the list empty")
        return self


class Trained(Settings):
    """What of the model learns; the rest stays bit for bit as it was."""

    image_tower: bool = Field(default=True, description="Whether the image tower learns")
    text_tower: bool = Field(default=True, description="Whether the text tower learns")
    lora: LowRank | None = Field(
        default=None,
        description="Learn low-rank updates in place of the weights; they are added to the weights "
        "at the end of the task",
    )

    @model_validator(mode="after")
    def _something_learns(self) -> Self:
        if not (self.image_tower or self.text_tower):
            raise ValueError(
                "trained: neither tower learns; set image_tower or text_tower to true, or leave "
                "the task out"
            )
        return self

    def learns(self, parameter_name: str) -> bool:
        """Whether a parameter of this name is in a tower that learns."""
        return self.image_tower if parameter_name.startswith(IMAGE_TOWER) else self.text_tower


def freeze_towers_(model: "DualEncoder", trained: Trained) -> None:
    """Stop training every parameter of the towers that do not learn; others stay as they are.

    Source: docs/method.md, What learns.
    """
    for name, parameter in model.named_parameters():
        if not trained.learns(name):
            parameter.requires_grad_(False)

"""torch's attention with its joint weights taken apart into linear layers, and put together again.

LoRA reaches a linear layer by its forward pass; `nn.MultiheadAttention` has one weight for three
of them and reads it past any forward pass.

Letters: any batch and token dimensions before D, the width.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention


class SplitAttention(nn.Module):
    """A self-attention of open_clip's with four linear layers: q_proj, k_proj, v_proj, out_proj."""

    def __init__(self, whole: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads = whole.num_heads
        rows = zip(whole.in_proj_weight.chunk(3), whole.in_proj_bias.chunk(3), strict=True)
        self.q_proj, self.k_proj, self.v_proj = (_linear(*row) for row in rows)
        self.out_proj = _linear(whole.out_proj.weight, whole.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """What `nn.MultiheadAttention` gives for (B, T, D) without weights; the mask is additive.

        ValueError when the weights are asked for.
        """
        if need_weights:
            raise ValueError("attention weights are not kept")
        q, k, v = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in (self.q_proj(query), self.k_proj(key), self.v_proj(value))
        )
        if attn_mask is not None and attn_mask.dim() == 3:  # (B * heads, T, T)
            attn_mask = attn_mask.unflatten(0, (-1, self.num_heads))
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        return self.out_proj(mixed.transpose(1, 2).flatten(2)), None

    @torch.no_grad()
    def joined(self) -> nn.MultiheadAttention:
        """The same attention in torch's own form."""
        width = self.out_proj.in_features
        parts = (self.q_proj, self.k_proj, self.v_proj)
        whole = nn.MultiheadAttention(width, self.num_heads, batch_first=True)
        whole = whole.to(self.q_proj.weight)
        whole.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        whole.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        whole.out_proj.load_state_dict(self.out_proj.state_dict())
        return whole.train(self.training)


def query_key_value(attention: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """Query, key and value of every token: each like `x`."""
    if isinstance(attention, SplitAttention):
        return attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)
    return joint_query_key_value(attention, x).split(x.shape[-1], dim=-1)


def joint_query_key_value(attention: nn.Module, x: Tensor) -> Tensor:
    """Query, key and value of every token side by side: (..., 3 D)."""
    if isinstance(attention, SplitAttention):
        return torch.cat(query_key_value(attention, x), dim=-1)
    return linear(x, attention.in_proj_weight, attention.in_proj_bias)


def query_and_key_value(attention: nn.Module, asking: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The query of every token of `asking` (..., D); key and value of `x` side by side (..., 2 D).

    For a block that few tokens leave.
    """
    if isinstance(attention, SplitAttention):
        kv = torch.cat([attention.k_proj(x), attention.v_proj(x)], dim=-1)
        return attention.q_proj(asking), kv
    width = x.shape[-1]
    q_weight, kv_weight = attention.in_proj_weight.split([width, 2 * width])
    q_bias, kv_bias = attention.in_proj_bias.split([width, 2 * width])
    return linear(asking, q_weight, q_bias), linear(x, kv_weight, kv_bias)


def split_attention_(model: nn.Module) -> None:
    """Take apart every attention in `model` that is open_clip's own self-attention."""
    for parent, name, module in list(_children(model)):
        if type(module) is nn.MultiheadAttention and _is_plain(module):
            setattr(parent, name, SplitAttention(module).train(module.training))


def join_attention_(model: nn.Module) -> None:
    """Put together what `split_attention_` took apart: names and shapes are as they were."""
    for parent, name, module in list(_children(model)):
        if isinstance(module, SplitAttention):
            setattr(parent, name, module.joined())


def _children(model: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    return [(p, name, child) for p in model.modules() for name, child in p.named_children()]


def _is_plain(attention: nn.MultiheadAttention) -> bool:
    return (
        attention.in_proj_weight is not None
        and attention.in_proj_bias is not None
        and attention.bias_k is None
        and attention.batch_first
        and attention.dropout == 0.0
    )


@torch.no_grad()
def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device, dtype=weight.dtype)
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    return layer

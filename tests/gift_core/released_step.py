"""The oracle: a step of both released variants, restated slowly from docs/method.md.

Everything is dense and written out: every pair's prompt is encoded for itself, the teacher runs in
every step, cross entropies are sums of -p log q, the consolidation is an autograd penalty, and
`as-published` really adds in place to the tensor that is back-propagated. Nothing of the step's
own code is used; only the settings are.

Shapes: B pairs or images, K classes, D features, L tokens.
"""

import torch
from torch import Tensor

from gift_core.features import DualEncoder
from gift_core.objective import Objective


def unit(features_BD: Tensor) -> Tensor:
    return features_BD / features_BD.norm(dim=-1, keepdim=True)


def soft_cross_entropy(logits_BK: Tensor, targets_BK: Tensor) -> Tensor:
    log_q_BK = logits_BK - logits_BK.exp().sum(dim=1, keepdim=True).log()
    return -(targets_BK * log_q_BK).sum(dim=1).mean()


def smooth(targets_BK: Tensor, share: float) -> Tensor:
    return (1 - share) * targets_BK + share / targets_BK.shape[1]


def softmax(logits_BK: Tensor) -> Tensor:
    return logits_BK.exp() / logits_BK.exp().sum(dim=1, keepdim=True)


def one_hot(labels_B: Tensor, num_classes: int, like: Tensor) -> Tensor:
    targets_BK = torch.zeros(len(labels_B), num_classes, dtype=like.dtype)
    for row, label in enumerate(labels_B.tolist()):
        targets_BK[row, label] = 1.0
    return targets_BK


def shared_positives(prompt_ids_B: Tensor, like: Tensor) -> Tensor:
    ids = prompt_ids_B.tolist()
    rows = [[float(a == b) / ids.count(a) for b in ids] for a in ids]
    return torch.tensor(rows, dtype=like.dtype)


def released_step(
    student: DualEncoder,
    teacher: DualEncoder,
    optimizer: torch.optim.Optimizer,
    task: tuple[Tensor, Tensor, Tensor],
    replay: tuple[Tensor, Tensor, Tensor],
    anchor: dict[str, Tensor],
    objective: Objective,
) -> dict[str, float]:
    """Step the student; the four weighted losses.

    `task` is images (B, C, H, W), labels (B,), class tokens (K, L); `replay` is images, the
    prompt's tokens of every single pair (B, L), prompt numbers (B,).
    """
    s = student.logit_scale.detach().exp()
    trained = {n: p for n, p in student.named_parameters() if n != "logit_scale"}

    # 1
    images, labels, class_tokens = task
    logits = s * unit(student.encode_image(images)) @ unit(student.encode_text(class_tokens)).T
    targets = smooth(one_hot(labels, len(class_tokens), logits), objective.label_smoothing)
    ce = soft_cross_entropy(logits, targets)

    # 2
    replay_images, replay_tokens, prompt_ids = replay
    with torch.no_grad():
        teacher_images = unit(teacher.encode_image(replay_images))
        teacher_texts = unit(teacher.encode_text(replay_tokens))
        m_t = s * teacher_images @ teacher_texts.T
    m_s = s * unit(student.encode_image(replay_images)) @ unit(student.encode_text(replay_tokens)).T

    # 3
    t = objective.distillation.temperature
    cd = objective.distillation.weight * (
        t * t * soft_cross_entropy(m_s / t, softmax(m_t / t))
        + t * t * soft_cross_entropy(m_s.T / t, softmax(m_t.T / t))
    )

    # 4
    matrix = smooth(shared_positives(prompt_ids, m_s), objective.alignment.label_smoothing)
    ita = objective.alignment.weight * (
        soft_cross_entropy(m_s, matrix) + soft_cross_entropy(m_s.T, matrix)
    )

    shown = {"task_loss": ce.item(), "distillation_loss": cd.item(), "alignment_loss": ita.item()}
    in_place = objective.released == "as-published"
    if in_place:
        ce += cd
        ce += ita

    # 5
    optimizer.zero_grad(set_to_none=True)
    (cd + ita).backward(retain_graph=True)
    fisher = {n: p.grad.clone() ** 2 for n, p in trained.items() if p.grad is not None}
    fisher = {n: f / f.mean() for n, f in fisher.items()}

    # 6
    wc = objective.consolidation.weight * sum(
        (fisher[n] * (p - anchor[n]) ** 2).sum() for n, p in trained.items()
    )
    shown["consolidation_loss"] = wc.item()
    if in_place:
        ce += wc

    # 7
    (ce + wc).backward()
    optimizer.step()
    return shown

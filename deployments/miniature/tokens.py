"""The word-level tokenizer that the CLIP and the generator share."""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from deployments.miniature.vocabulary import CONTEXT_LENGTH, words

PAD_ID, UNKNOWN_ID, START_ID, END_ID = range(4)
SPECIAL_TOKENS = ("<pad>", "<unknown>", "<start>", "<end>")


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer: lower case, one token a word, start and end around each prompt."""
    vocabulary = {word: number for number, word in enumerate((*SPECIAL_TOKENS, *words()))}
    core = Tokenizer(WordLevel(vocabulary, unk_token=SPECIAL_TOKENS[UNKNOWN_ID]))
    core.normalizer = Lowercase()
    core.pre_tokenizer = Whitespace()
    core.post_processor = TemplateProcessing(
        single="<start> $A <end>",
        special_tokens=[("<start>", START_ID), ("<end>", END_ID)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=SPECIAL_TOKENS[PAD_ID],
        unk_token=SPECIAL_TOKENS[UNKNOWN_ID],
        bos_token=SPECIAL_TOKENS[START_ID],
        eos_token=SPECIAL_TOKENS[END_ID],
        model_max_length=CONTEXT_LENGTH,
        padding_side="right",
    )


def token_ids(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    """Return the ids of the texts: int64 [N, CONTEXT_LENGTH], padded with PAD_ID."""
    ids = tokenizer(
        texts, padding="max_length", max_length=CONTEXT_LENGTH, truncation=True, return_tensors="pt"
    ).input_ids
    return torch.as_tensor(ids)


def num_tokens() -> int:
    """Return the size of the vocabulary, special tokens included."""
    return len(SPECIAL_TOKENS) + len(words())


def save_tokenizer(folder: Path) -> None:
    """Write the tokenizer's files into the folder."""
    build_tokenizer().save_pretrained(str(folder))

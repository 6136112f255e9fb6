"""Writes a random model and its tokenizer for `transformers serve`: `python -m gpucheck.work_model SHAPE FOLDER`.

Its words mean nothing; every token is a visible word, so that clients see tokens arrive one by one.
"""

import json
import sys

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = 1024
SPECIAL = ["<s>", "</s>", "<unk>"]


def tokenizer():
    """One token a word; the chat template adds words that are all <unk>."""
    words = [f"w{i}" for i in range(WORDS)] + SPECIAL
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # WordLevel alone joins tokens with one space, also when they are decoded one at a time in a stream.
    core.decoder = decoders.Sequence([decoders.Replace("w", " w")])
    fast = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}assistant:"
    return fast


def main(shape, folder):
    torch.manual_seed(20)
    words = tokenizer()
    config = LlamaConfig(
        vocab_size=len(words),
        max_position_embeddings=4096,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        **json.loads(shape),
    )
    torch.set_default_dtype(torch.bfloat16)
    # A billion random numbers take the CPU a minute and the GPU a second.
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    words.save_pretrained(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])

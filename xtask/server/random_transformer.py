"""Writes a small random model and its tokenizer for `transformers serve` and vLLM: `random_transformer.py DIR [WIDTH]`.

As with `random_gguf.py` the words mean nothing; every token is a visible word.
"""

import sys

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = 1024
SPECIAL = ["<s>", "</s>", "<unk>"]


def tokenizer():
    """One token a word; a word outside the vocabulary is one <unk>, which is as good a token as any here."""
    words = [f"w{i}" for i in range(WORDS)] + SPECIAL
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # WordLevel alone joins tokens with one space, also when they are decoded one at a time in a stream.
    core.decoder = decoders.Sequence([decoders.Replace("w", " w")])
    fast = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}assistant:"
    return fast


def main(folder, width=64):
    # A fixed seed: the same weights on every machine.
    torch.manual_seed(20)
    words = tokenizer()
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    words.save_pretrained(folder)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))

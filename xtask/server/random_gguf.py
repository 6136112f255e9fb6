"""Writes a small random model that llama-server loads: `random_gguf.py OUT.gguf`.

Its words mean nothing. What matters is that it is quick to run, that its weights take the quantised and the
half-precision paths of a backend, and that almost every token shows as visible text at once, so that clients see
tokens arrive one by one. No token is a byte of a longer character except the 256 bytes a tokenizer must have.
"""

import sys

import gguf
import numpy as np

BLOCKS = 4
WIDTH = 256
HEADS = 4
KV_HEADS = 2
FEED_FORWARD = 1024
CONTEXT = 4096
WORDS = 1024

# A fixed seed: the same file on every machine, so that answers at temperature 0 can be compared.
RANDOM = np.random.default_rng(20)


def vocabulary():
    """Words first: logits that are all equal, as on a device that computes nothing, then still give words."""
    normal, byte, control = gguf.TokenType.NORMAL, gguf.TokenType.BYTE, gguf.TokenType.CONTROL
    words = [("\u2581w%d" % i, normal) for i in range(WORDS)]
    pieces = [("\u2581", normal)] + [(c, normal) for c in "abcdefghijklmnopqrstuvwxyz0123456789:.?!,"]
    bytes_ = [("<0x%02X>" % b, byte) for b in range(256)]
    special = [("<unk>", gguf.TokenType.UNKNOWN), ("<s>", control), ("</s>", control)]
    return words + pieces + bytes_ + special


def weights(*shape):
    return (RANDOM.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)


def main(path):
    tokens = vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("gpuspan-random")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(BLOCKS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _ in tokens])
    writer.add_token_types([kind for _, kind in tokens])
    # Longer pieces win when a prompt is cut into tokens.
    writer.add_token_scores([float(len(text)) if kind == gguf.TokenType.NORMAL else -1000.0 for text, kind in tokens])
    writer.add_unk_token_id(len(tokens) - 3)
    writer.add_bos_token_id(len(tokens) - 2)
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_chat_template("{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}assistant:")

    def quantised(name, *shape):
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(weights(*shape), kind), raw_dtype=kind)

    kv = WIDTH // HEADS * KV_HEADS
    writer.add_tensor("token_embd.weight", weights(len(tokens), WIDTH).astype(np.float16))
    writer.add_tensor("output.weight", weights(len(tokens), WIDTH).astype(np.float16))
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, dtype=np.float32))
    for block in range(BLOCKS):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{block}.{norm}.weight", np.ones(WIDTH, dtype=np.float32))
        quantised(f"blk.{block}.attn_q.weight", WIDTH, WIDTH)
        quantised(f"blk.{block}.attn_k.weight", kv, WIDTH)
        quantised(f"blk.{block}.attn_v.weight", kv, WIDTH)
        writer.add_tensor(f"blk.{block}.attn_output.weight", weights(WIDTH, WIDTH).astype(np.float16))
        quantised(f"blk.{block}.ffn_gate.weight", FEED_FORWARD, WIDTH)
        quantised(f"blk.{block}.ffn_up.weight", FEED_FORWARD, WIDTH)
        quantised(f"blk.{block}.ffn_down.weight", WIDTH, FEED_FORWARD)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main(sys.argv[1])

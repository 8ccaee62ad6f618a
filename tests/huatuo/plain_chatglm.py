"""ChatGLM-6B written out plainly, one sequence, one head at a time, without cache or padding: what the port is held against."""

import math

import torch
from torch.nn.functional import layer_norm, linear


def places(config, ids):
    """(positions, block positions, index of <sop>) of one whole sequence, as the original's get_position_ids."""
    start = ids.index(config.bos_token_id)
    masks = [config.gmask_token_id, config.mask_token_id]
    if config.old_positions:
        masks.reverse()
    mask = masks[0] if masks[0] in ids else masks[1]
    asked = ids.index(mask)
    first = list(range(start)) + [asked] * (len(ids) - start)
    if config.old_positions and mask == config.gmask_token_id:
        first[start] = start
    second = [0] * start + list(range(1, len(ids) - start + 1))
    return first, second, start


def logits(weights, config, ids, dtype=torch.float32):
    """(T, V) of one sequence that holds a mask and <sop>. weights: the original's names; a prefix among them is used."""
    w = {name: tensor.to(dtype) for name, tensor in weights.items()}
    heads, width = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    first, second, start = places(config, ids)
    prefix = w.get("transformer.prefix_encoder.embedding.weight")
    before = 0 if prefix is None else len(prefix)
    hidden = torch.zeros(len(ids), len(ids), dtype=torch.bool)
    for row in range(len(ids)):
        for column in range(max(start, row + 1), len(ids)):
            hidden[row, column] = True
    hidden = torch.cat([torch.zeros(len(ids), before, dtype=torch.bool), hidden], 1)
    x = w["transformer.word_embeddings.weight"][torch.tensor(ids)]
    for layer in range(config.num_layers):
        at = f"transformer.layers.{layer}."
        a = normal(x, w, at + "input_layernorm", config)
        fused = linear(
            a, w[at + "attention.query_key_value.weight"], w[at + "attention.query_key_value.bias"]
        )
        mixed = []
        for head in range(heads):
            q, k, v = fused[:, 3 * width * head : 3 * width * (head + 1)].split(width, 1)
            q, k = (both_turned(part, first, second, config, dtype) for part in (q, k))
            if prefix is not None:
                flat = prefix.view(before, 2 * config.num_layers, heads, width)
                k = torch.cat([flat[:, 2 * layer, head], k])
                v = torch.cat([flat[:, 2 * layer + 1, head], v])
            scores = torch.einsum("qd,kd->qk", q / (math.sqrt(width) * (layer + 1)), k)
            scores = scores.masked_fill(hidden, -10000.0).float() * (layer + 1)
            mixed.append(scores.softmax(-1).to(dtype) @ v)
        h = a * 56**0.5 + linear(
            torch.cat(mixed, 1), w[at + "attention.dense.weight"], w[at + "attention.dense.bias"]
        )
        m = normal(h, w, at + "post_attention_layernorm", config)
        inner = linear(m, w[at + "mlp.dense_h_to_4h.weight"], w[at + "mlp.dense_h_to_4h.bias"])
        inner = (
            0.5
            * inner
            * (1 + torch.tanh(0.7978845608028654 * inner * (1 + 0.044715 * inner * inner)))
        )
        x = m * 56**0.5 + linear(
            inner, w[at + "mlp.dense_4h_to_h.weight"], w[at + "mlp.dense_4h_to_h.bias"]
        )
    x = normal(x, w, "transformer.final_layernorm", config)
    return x @ w["transformer.word_embeddings.weight"].T


def normal(x, w, name, config):
    """LayerNorm with its weight and bias."""
    return layer_norm(
        x, (config.hidden_size,), w[name + ".weight"], w[name + ".bias"], config.layernorm_epsilon
    )


def both_turned(part, first, second, config, dtype):
    """(T, D): one half turned by the position, the other by the block position; or all of it by the position."""
    if not config.position_encoding_2d:
        return turned(part, list(range(len(part))), dtype)
    left, right = part.chunk(2, 1)
    return torch.cat([turned(left, first, dtype), turned(right, second, dtype)], 1)


def turned(part, where, dtype):
    """(T, d) turned by the rows of the original's table: in half when the model is, with half frequencies always."""
    exact = torch.float16 if dtype == torch.float16 else torch.float32
    size = part.shape[1]
    frequencies = (1.0 / (10000 ** (torch.arange(0, size, 2).float() / size))).half().to(exact)
    table = torch.arange(max(where) + 1, dtype=exact)[:, None] * frequencies[None]
    angles = torch.cat([table, table], 1)[torch.tensor(where)]
    left, right = part.chunk(2, 1)
    return part * angles.cos().to(dtype) + torch.cat([-right, left], 1) * angles.sin().to(dtype)

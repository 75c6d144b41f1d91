"""Lists the parameters of encoders with relative or rotary positions, in the order of transformers 5."""

from ftsys.errors import ConfigError
from launcher.planner.model_shape.parts import (
    Config,
    Tensors,
    bert_layer,
    encoder,
    linear,
    norm,
    shape_of_layer,
    share_of,
    size_of,
    table,
    two_layer_head,
)
from launcher.planner.model_shape.shape import Layer, ModelShape


def mpnet(config: Config, outputs: int) -> ModelShape:
    """Return the shape of an MPNet: BERT with a learned attention bias for each distance, one table for all layers."""
    layer = shape_of_layer(config, attention="relative")
    size, positions = layer.hidden, size_of(config, "max_position_embeddings", 512)

    def tensors() -> Tensors:
        yield table("mpnet.embeddings.word_embeddings", size_of(config, "vocab_size", 30527), size)
        yield table("mpnet.embeddings.position_embeddings", positions, size)
        yield from norm("mpnet.embeddings.LayerNorm", size)
        for prefix in (f"mpnet.encoder.layer.{index}" for index in range(size_of(config, "num_hidden_layers", 12))):
            for name in ("q", "k", "v", "o"):
                yield from linear(f"{prefix}.attention.attn.{name}", size, size)
            yield from norm(f"{prefix}.attention.LayerNorm", size)
            yield from linear(f"{prefix}.intermediate.dense", size, layer.inner)
            yield from linear(f"{prefix}.output.dense", layer.inner, size)
            yield from norm(f"{prefix}.output.LayerNorm", size)
        buckets = size_of(config, "relative_attention_num_buckets", 32)
        yield table("mpnet.encoder.relative_attention_bias", buckets, layer.heads)
        yield from two_layer_head(size, outputs)

    longest = positions - size_of(config, "pad_token_id", 1) - 1
    return encoder("mpnet", config, layer, tensors(), outputs, longest=longest, recomputable=False)


def deberta_v2(config: Config, outputs: int) -> ModelShape:
    """Return the shape of a DeBERTa-v2 or v3: attention with products of content and relative position."""
    hidden, heads = size_of(config, "hidden_size", 1536), size_of(config, "num_attention_heads", 24)
    relative = config.get("relative_attention") is True
    products = _position_products(config) if relative else ()
    rows = _relative_positions(config) if relative else 0
    layer = shape_of_layer(
        config,
        hidden=hidden,
        inner=size_of(config, "intermediate_size", 6144),
        heads=heads,
        head_size=hidden // max(heads, 1),
        key_heads=heads,
        attention="disentangled",
        position_products=len(products),
    )
    biased = config.get("position_biased_input") is not False
    return encoder(
        "deberta-v2",
        config,
        layer,
        _deberta_tensors(config, layer, products, rows, outputs),
        outputs,
        embedding_size=size_of(config, "embedding_size", hidden),
        layers=size_of(config, "num_hidden_layers", 24),
        longest=size_of(config, "max_position_embeddings", 512) if biased else None,
    )


def _deberta_tensors(config: Config, layer: Layer, products: tuple[str, ...], rows: int, outputs: int) -> Tensors:
    hidden = layer.hidden
    width, positions = size_of(config, "embedding_size", hidden), size_of(config, "max_position_embeddings", 512)
    yield table("deberta.embeddings.word_embeddings", size_of(config, "vocab_size", 128100), width)
    if config.get("position_biased_input") is not False:
        yield table("deberta.embeddings.position_embeddings", positions, width)
    if size_of(config, "type_vocab_size", 0):
        yield table("deberta.embeddings.token_type_embeddings", size_of(config, "type_vocab_size", 0), width)
    if width != hidden:
        yield from linear("deberta.embeddings.embed_proj", width, hidden, bias=False)
    yield from norm("deberta.embeddings.LayerNorm", hidden)
    for index in range(size_of(config, "num_hidden_layers", 24)):
        yield from _deberta_layer(f"deberta.encoder.layer.{index}", config, layer, products)
    yield from _deberta_encoder(config, hidden, rows)
    pooled = size_of(config, "pooler_hidden_size", hidden)
    yield from linear("pooler.dense", pooled, pooled)
    yield from linear("classifier", pooled, outputs)


def _position_products(config: Config) -> tuple[str, ...]:
    written = config.get("pos_att_type") or ()
    return tuple(written.lower().split("|") if isinstance(written, str) else written)


def _relative_positions(config: Config) -> int:
    buckets, reach = config.get("position_buckets", -1), config.get("max_relative_positions", -1)
    if isinstance(buckets, int) and buckets > 0:
        return 2 * buckets
    return 2 * (reach if isinstance(reach, int) and reach > 0 else size_of(config, "max_position_embeddings", 512))


def _deberta_layer(prefix: str, config: Config, layer: Layer, products: tuple[str, ...]) -> Tensors:
    size, own = layer.hidden, config.get("share_att_key") is not True
    tensors = [*bert_layer(prefix, layer, ("query_proj", "key_proj", "value_proj"))]
    yield from tensors[:6]
    for product, name in (("c2p", "pos_key_proj"), ("p2c", "pos_query_proj")):
        if own and product in products:
            yield from linear(f"{prefix}.attention.self.{name}", size, size)
    yield from tensors[6:]


def _deberta_encoder(config: Config, hidden: int, rows: int) -> Tensors:
    if rows:
        yield table("deberta.encoder.rel_embeddings", rows, hidden)
    if "layer_norm" in str(config.get("norm_rel_ebd", "none")):
        yield from norm("deberta.encoder.LayerNorm", hidden)
    if size_of(config, "conv_kernel_size", 0):
        raise ConfigError("config.json has conv_kernel_size above 0: DeBERTa-v2's convolution is not modelled")


def modernbert(config: Config, outputs: int) -> ModelShape:
    """Return the shape of a ModernBERT: norms before the blocks, gated inner layers, rotary positions."""
    size, heads = size_of(config, "hidden_size", 768), size_of(config, "num_attention_heads", 12)
    inner, layers = size_of(config, "intermediate_size", 1152), size_of(config, "num_hidden_layers", 22)
    layer = Layer(
        hidden=size,
        inner=inner,
        heads=heads,
        head_size=size // max(heads, 1),
        key_heads=heads,
        attention="rotary",
        projections=1,
        pre_norm=True,
        gated=True,
        activation=str(config.get("hidden_activation", "gelu")),
        attention_dropout=share_of(config, "attention_dropout", 0.0),
    )
    return encoder(
        "modernbert",
        config,
        layer,
        _modernbert_tensors(config, layer, layers, outputs),
        outputs,
        layers=layers,
        longest=size_of(config, "max_position_embeddings", 8192),
    )


def _modernbert_tensors(config: Config, layer: Layer, layers: int, outputs: int) -> Tensors:
    size, inner = layer.hidden, layer.inner
    in_norm, in_attention, in_inner, in_head = (
        config.get(name) is True for name in ("norm_bias", "attention_bias", "mlp_bias", "classifier_bias")
    )
    yield table("model.embeddings.tok_embeddings", size_of(config, "vocab_size", 50368), size)
    yield from norm("model.embeddings.norm", size, in_norm)
    for index in range(layers):
        prefix = f"model.layers.{index}"
        if index:
            yield from norm(f"{prefix}.attn_norm", size, in_norm)
        yield from linear(f"{prefix}.attn.Wqkv", size, 3 * size, in_attention)
        yield from linear(f"{prefix}.attn.Wo", size, size, in_attention)
        yield from norm(f"{prefix}.mlp_norm", size, in_norm)
        yield from linear(f"{prefix}.mlp.Wi", size, 2 * inner, in_inner)
        yield from linear(f"{prefix}.mlp.Wo", inner, size, in_inner)
    yield from norm("model.final_norm", size, in_norm)
    yield from linear("head.dense", size, size, in_head)
    yield from norm("head.norm", size, in_norm)
    yield from linear("classifier", size, outputs)

"""Lists the parameters of BERT and the encoders built like it, in the order of transformers 5.

Defaults are those of transformers' configuration classes: a config.json may leave out values that equal them.
"""

from collections.abc import Callable

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


def bert(config: Config, outputs: int) -> ModelShape:
    """Return the shape of a BERT; MiniLM is a small BERT."""
    layer, vocabulary = shape_of_layer(config), size_of(config, "vocab_size", 30522)
    size = layer.hidden

    def tensors() -> Tensors:
        yield table("bert.embeddings.word_embeddings", vocabulary, size)
        yield table("bert.embeddings.position_embeddings", size_of(config, "max_position_embeddings", 512), size)
        yield table("bert.embeddings.token_type_embeddings", size_of(config, "type_vocab_size", 2), size)
        yield from norm("bert.embeddings.LayerNorm", size)
        for index in range(size_of(config, "num_hidden_layers", 12)):
            yield from bert_layer(f"bert.encoder.layer.{index}", layer)
        yield from linear("bert.pooler.dense", size, size)
        yield from linear("classifier", size, outputs)

    return encoder("bert", config, layer, tensors(), outputs)


def _roberta(family: str, vocabulary: int, head_first: bool) -> Callable[[Config, int], ModelShape]:
    def shape(config: Config, outputs: int) -> ModelShape:
        layer = shape_of_layer(config)
        size, positions = layer.hidden, size_of(config, "max_position_embeddings", 512)

        def body() -> Tensors:
            yield table("roberta.embeddings.word_embeddings", size_of(config, "vocab_size", vocabulary), size)
            yield table("roberta.embeddings.token_type_embeddings", size_of(config, "type_vocab_size", 2), size)
            yield from norm("roberta.embeddings.LayerNorm", size)
            yield table("roberta.embeddings.position_embeddings", positions, size)
            for index in range(size_of(config, "num_hidden_layers", 12)):
                yield from bert_layer(f"roberta.encoder.layer.{index}", layer)

        parts = [*body()], [*two_layer_head(size, outputs)]
        ordered = (parts[1] + parts[0]) if head_first else (parts[0] + parts[1])
        # Positions are counted from the padding token's id + 1.
        longest = positions - size_of(config, "pad_token_id", 1) - 1
        return encoder(family, config, layer, iter(ordered), outputs, longest=longest)

    return shape


roberta = _roberta("roberta", 50265, head_first=False)
xlm_roberta = _roberta("xlm-roberta", 30522, head_first=True)
camembert = _roberta("camembert", 30522, head_first=True)


def distilbert(config: Config, outputs: int) -> ModelShape:
    """Return the shape of a DistilBERT: half of BERT's layers, other names."""
    size, heads = size_of(config, "dim", 768), size_of(config, "n_heads", 12)
    layer = Layer(
        hidden=size,
        inner=size_of(config, "hidden_dim", 3072),
        heads=heads,
        head_size=size // max(heads, 1),
        key_heads=heads,
        activation=str(config.get("activation", "gelu")),
        attention_dropout=share_of(config, "attention_dropout", 0.1),
        hidden_dropout=share_of(config, "dropout", 0.1),
    )
    layers, positions = size_of(config, "n_layers", 6), size_of(config, "max_position_embeddings", 512)

    def tensors() -> Tensors:
        yield table("distilbert.embeddings.word_embeddings", size_of(config, "vocab_size", 30522), size)
        yield table("distilbert.embeddings.position_embeddings", positions, size)
        yield from norm("distilbert.embeddings.LayerNorm", size)
        for prefix in (f"distilbert.transformer.layer.{index}" for index in range(layers)):
            for name in ("q_lin", "k_lin", "v_lin", "out_lin"):
                yield from linear(f"{prefix}.attention.{name}", size, size)
            yield from norm(f"{prefix}.sa_layer_norm", size)
            yield from linear(f"{prefix}.ffn.lin1", size, layer.inner)
            yield from linear(f"{prefix}.ffn.lin2", layer.inner, size)
            yield from norm(f"{prefix}.output_layer_norm", size)
        yield from linear("pre_classifier", size, size)
        yield from linear("classifier", size, outputs)

    return encoder("distilbert", config, layer, tensors(), outputs, layers=layers)


def electra(config: Config, outputs: int) -> ModelShape:
    """Return the shape of ELECTRA's discriminator."""
    layer = shape_of_layer(
        config,
        hidden=(hidden := size_of(config, "hidden_size", 256)),
        inner=size_of(config, "intermediate_size", 1024),
        heads=(heads := size_of(config, "num_attention_heads", 4)),
        head_size=hidden // max(heads, 1),
        key_heads=heads,
    )
    size, width = hidden, size_of(config, "embedding_size", 128)

    def tensors() -> Tensors:
        yield table("electra.embeddings.word_embeddings", size_of(config, "vocab_size", 30522), width)
        yield table("electra.embeddings.position_embeddings", size_of(config, "max_position_embeddings", 512), width)
        yield table("electra.embeddings.token_type_embeddings", size_of(config, "type_vocab_size", 2), width)
        yield from norm("electra.embeddings.LayerNorm", width)
        if width != size:
            yield from linear("electra.embeddings_project", width, size)
        for index in range(size_of(config, "num_hidden_layers", 12)):
            yield from bert_layer(f"electra.encoder.layer.{index}", layer)
        yield from two_layer_head(size, outputs)

    return encoder("electra", config, layer, tensors(), outputs, embedding_size=width)


def albert(config: Config, outputs: int) -> ModelShape:
    """Return the shape of an ALBERT: the weights of few layers, computed many times."""
    layer = shape_of_layer(
        config,
        hidden=(hidden := size_of(config, "hidden_size", 4096)),
        inner=size_of(config, "intermediate_size", 16384),
        heads=(heads := size_of(config, "num_attention_heads", 64)),
        head_size=hidden // max(heads, 1),
        key_heads=heads,
        activation=str(config.get("hidden_act", "gelu_new")),
        attention_dropout=share_of(config, "attention_probs_dropout_prob", 0.0),
        hidden_dropout=share_of(config, "hidden_dropout_prob", 0.0),
    )
    size, width = hidden, size_of(config, "embedding_size", 128)
    layers, groups = size_of(config, "num_hidden_layers", 12), size_of(config, "num_hidden_groups", 1)
    each = size_of(config, "inner_group_num", 1)

    def tensors() -> Tensors:
        yield table("albert.embeddings.word_embeddings", size_of(config, "vocab_size", 30000), width)
        yield table("albert.embeddings.position_embeddings", size_of(config, "max_position_embeddings", 512), width)
        yield table("albert.embeddings.token_type_embeddings", size_of(config, "type_vocab_size", 2), width)
        yield from norm("albert.embeddings.LayerNorm", width)
        yield from linear("albert.encoder.embedding_hidden_mapping_in", width, size)
        for group in range(groups):
            for inner in range(each):
                prefix = f"albert.encoder.albert_layer_groups.{group}.albert_layers.{inner}"
                yield from _albert_layer(prefix, layer, layers // max(groups, 1))
        yield from linear("albert.pooler", size, size)
        yield from linear("classifier", size, outputs)

    return encoder(
        "albert", config, layer, tensors(), outputs, embedding_size=width, layers=layers * each, recomputable=False
    )


def _albert_layer(prefix: str, layer: Layer, uses: int) -> Tensors:
    size = layer.hidden
    yield from norm(f"{prefix}.full_layer_layer_norm", size, uses=uses)
    for name in ("query", "key", "value", "dense"):
        yield from linear(f"{prefix}.attention.{name}", size, size, uses=uses)
    yield from norm(f"{prefix}.attention.LayerNorm", size, uses=uses)
    yield from linear(f"{prefix}.ffn", size, layer.inner, uses=uses)
    yield from linear(f"{prefix}.ffn_output", layer.inner, size, uses=uses)

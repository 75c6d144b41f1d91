"""Lists the types of models whose rows depend on padding, so that they are refused before anything is prepared.

A test makes a small model of each type and compares. Models of other types are asked by `ftsys.train.padding_side`,
once their weights are loaded. Imports no torch.
"""

from ftsys.errors import ConfigError

UNPADDABLE = {
    "canine": "its convolutions and its pooling over characters do not know the mask",
    "convbert": "its convolutions do not know the mask",
    "fnet": "its Fourier transform mixes all positions and knows no mask",
    "funnel": "it pools neighbouring positions, padding among them",
    "nystromformer": "it averages segments of the padded length",
    "reformer": "it sorts positions into buckets at random, padding among them",
    "yoso": "it draws random hashes at each call",
}
"""Model types of config.json, with the reason."""

OTHER_WAYS = (
    "Choose a model of another type, or train it in a script with ftsys.Trainer, which pads as transformers does"
)
"""The advice of a refusal."""


def check_paddable(model_type: object) -> None:
    """Raise ConfigError for a type of model whose rows would have other scores beside longer rows."""
    if model_type in UNPADDABLE:
        raise ConfigError(
            f"model type {model_type!r} cannot be trained in batches of rows of different lengths: "
            f"{UNPADDABLE[str(model_type)]}, so a row's scores would depend on its neighbours. {OTHER_WAYS}."
        )

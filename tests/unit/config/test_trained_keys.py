"""Tests the keys that decide how weights are trained: train.freeze, train.layer_decay, train.dropout, [lora]."""

from typing import Any

import pytest

from ftsys.config import build_run, identity_parts
from ftsys.errors import ConfigError

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"train": {"freeze": "embedings"}}, r"train.freeze=\['embedings'\]: .* did you mean 'embeddings'\?"),
    ({"train": {"freeze": ["layers.3-1"]}}, "'layers.3-1' names no part of a model"),
    ({"train": {"freeze": ["layers." + "9" * 5_000]}}, "names no part of a model"),
    ({"train": {"freeze": ["encoder", "head"]}}, "leaves no weight to train"),
    ({"train": {"freeze": 3}}, 'train.freeze=3 cannot be used: write a part such as "embeddings"'),
    ({"train": {"layer_decay": 0.0}}, "train.layer_decay=0.0 cannot be used: write a number above 0, and 1"),
    ({"train": {"layer_decay": 1.1}}, "train.layer_decay=1.1 cannot be used"),
    ({"train": {"dropout": 1.0}}, "train.dropout=1.0 cannot be used: write a number from 0 \\(none\\) to below 1"),
    ({"lora": {"r": 0}}, "lora.r=0 cannot be used: write a whole number above 0"),
    ({"lora": {"alpha": 8.0}}, "lora.alpha=8.0 has no effect without a rank: write lora.r = 8"),
    ({"lora": {"r": 8, "dropout": 1.0}}, "lora.dropout=1.0 cannot be used"),
    ({"lora": {"r": 8, "target_modules": ["auto", "query"]}}, r'\["auto"|write "auto", "all" or a list of names'),
    ({"lora": {"r": 8, "target_modules": []}}, r'lora.target_modules=\[\] cannot be used: write "auto"'),
    ({"lora": {"r": 8}, "train": {"freeze": "encoder"}}, "has no use with lora.r=8"),
    ({"lora": {"r": 8}, "engine": {"zero_stage": 3}}, "engine.zero_stage=3 splits the weights, and lora.r=8 needs"),
    ({"lora": {"r": 8}, "engine": {"offload": "parameters"}}, "engine.offload='parameters' moves the weights"),
    ({"trainer": {"layer_decay": 0.9}}, "is decided by another section: write train.layer_decay"),
]


def run_of(**sections: Any) -> Any:
    return build_run({"output_dir": "runs/x", "task": {"name": "mrpc"}, **sections})


@pytest.mark.parametrize(("sections", "words"), WRONG)
def test_a_value_that_cannot_be_used(sections: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        run_of(**sections)


def test_one_name_and_a_list() -> None:
    assert run_of(train={"freeze": "embeddings"}).train.freeze == ("embeddings",)
    assert run_of(lora={"r": 4, "target_modules": "all"}).lora.target_modules == ("all",)


def test_the_identity_of_runs_without_these_keys_stays_and_with_them_differs() -> None:
    plain = identity_parts(run_of())
    assert not {"layer_decay", "dropout", "freeze", "lora"} & {*plain, *plain["train"]}
    others = [
        run_of(train={"layer_decay": 0.9}), run_of(train={"dropout": 0.0}), run_of(train={"freeze": "encoder"}),
        run_of(lora={"r": 8}), run_of(lora={"r": 8, "alpha": 8.0}),
        run_of(trainer={"load_best_model_at_end": True}),
        run_of(trainer={"load_best_model_at_end": True, "metric_for_best_model": "f1"}),
    ]  # fmt: skip
    found = [plain, *map(identity_parts, others)]
    assert all(one != other for index, one in enumerate(found) for other in found[index + 1 :])
    assert identity_parts(run_of(lora={"r": 8, "merge": False})) == identity_parts(run_of(lora={"r": 8}))

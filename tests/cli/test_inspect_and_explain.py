from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layertap.backends.native.supports import default_instruction_set
from layertap.models.config import ConfigReader
from layertap.models.registry import architecture

Run = Callable[..., Any]


def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layertap.backends.here.find_spec", lambda _: None)


def test_inspect_as_json(layertap: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_torch(monkeypatch)
    ended = layertap("inspect", model, "--json")
    assert (ended.code, ended.err) == (0, "")
    facts = json.loads(ended.out)
    assert facts["architecture"] == "bert"
    assert (facts["num_hidden_layers"], facts["hidden_size"], facts["max_length"]) == (3, 32, 64)
    assert facts["limits"] == {"position table": 64, "tokenizer_config.json": 64}
    assert facts["stored"] == {"float32": facts["parameters"]}
    assert facts["pooler"] == "trained"
    assert {output["name"]: (output["shape"], output["usable"]) for output in facts["outputs"]} == {
        "last_hidden_state": (["T", 32], True),
        "hidden_states[i]": (["T", 32], True),
        "hidden_states[:]": (["T", 4, 32], True),
        "attentions[i]": ([4, "T", "T"], True),
        "pooler_output": ([32], True),
        "sentence_embedding": (None, False),
    }
    assert facts["tokenizer"]["template"] == "[CLS] TEXT [SEP]"
    assert facts["backends"] == []
    assert list(facts["absent_backends"]) == ["native", "torch"]
    assert facts["auto_backend"].startswith("none: nothing here can run this model: native is not built")


@pytest.mark.parametrize(
    ("pooler", "said"),
    [
        ("trained", "trained: dense and tanh"),
        ("untrained", "stored, never trained (its bias is exactly zero): refused unless"),
        ("absent", "absent: refused"),
    ],
)
def test_inspect_tells_the_state_of_the_pooler(
    layertap: Run, make_checkpoint: Run, tmp_path: Path, pooler: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_torch(monkeypatch)
    model = make_checkpoint(tmp_path / "m", "roberta", pooler=pooler, dtype="BF16")
    out = " ".join(layertap("inspect", model).out.split())  # lines are wrapped
    assert said in out
    assert "roberta (RobertaModel in transformers)" in out
    assert "stored as bfloat16" in out
    assert "62 tokens, special ones included (position table 64, tokenizer_config.json 62)" in out
    assert "<s> TEXT </s> (CLS is token 0)" in out
    assert "pip install 'layertap[torch]'" in out


def test_inspect_tells_of_shared_weights_and_narrow_tables(
    layertap: Run, make_checkpoint: Run, write_tensors: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_torch(monkeypatch)
    model = make_checkpoint(tmp_path / "m")
    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": "albert", "embedding_size": 8, "num_hidden_layers": 5, "num_hidden_groups": 2}
    (model / "config.json").write_text(json.dumps(config))
    shapes = architecture("albert").spec(ConfigReader(config)).parameters()
    write_tensors(model, {name: np.ones(shape, np.float32) for name, shape in shapes.items()})
    out = layertap("inspect", model).out
    assert "5 blocks that share 2 sets of weights, so 6 hidden states" in out
    assert "hidden 32, tables 8, 4 heads of 8" in out
    facts = json.loads(layertap("inspect", model, "--json").out)
    assert (facts["num_hidden_layers"], facts["sets_of_weights"], facts["embedding_size"]) == (5, 2, 8)


def test_inspect_lists_what_is_not_used_and_what_is_missing(
    layertap: Run, make_checkpoint: Run, write_tensors: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.numpy import load_file

    without_torch(monkeypatch)
    model = make_checkpoint(tmp_path / "m")
    arrays = load_file(model / "model.safetensors")
    del arrays["encoder.layer.1.output.dense.bias"]
    arrays["something.else"] = arrays["pooler.dense.bias"].copy()
    arrays["cls.predictions.bias"] = arrays["pooler.dense.bias"].copy()
    write_tensors(model, arrays)
    ended = layertap("inspect", model)
    assert "missing       encoder.layer.1.output.dense.bias: features that need them are refused" in ended.out
    assert "unknown here  something.else" in ended.out
    assert "never needed  cls.predictions.bias" in ended.out
    assert ended.code == 1
    assert ended.err == (
        f"layertap: error: {model}: encoder.layer.1.output.dense.bias: expected a weight of shape [32], found none "
        "under this name or one that leads to it; not used are something.else\n"
    )


def test_inspect_notices_wrong_shapes_and_dtypes_without_reading_data(
    layertap: Run, make_checkpoint: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np
    from safetensors.numpy import load_file, save_file

    without_torch(monkeypatch)
    model = make_checkpoint(tmp_path / "m")
    file = model / "model.safetensors"
    arrays = load_file(file)
    key = "encoder.layer.2.output.dense.weight"
    arrays[key] = arrays[key].T.copy()
    arrays["embeddings.LayerNorm.bias"] = np.zeros(32, np.int64)
    arrays["embeddings.word_embeddings.weight"][:] = np.nan  # data, so not looked at
    save_file(arrays, file)
    for arguments in ((), ("--json",)):
        ended = layertap("inspect", model, *arguments)
        assert ended.code == 1
        assert ended.err.splitlines() == [
            f"layertap: error: {file}: embeddings.LayerNorm.bias: expected one of F64, F32, F16, BF16, found I64",
            f"{file}: {key}: expected shape [32, 64] (as config.json says), found [64, 32]",
        ]
    assert json.loads(ended.out)["faults"] == ended.err.removeprefix("layertap: error: ").splitlines()


def test_inspect_shows_the_first_faults(layertap: Run, make_checkpoint: Run, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    model = make_checkpoint(tmp_path / "m")
    arrays = load_file(model / "model.safetensors")
    save_file({key: array for key, array in arrays.items() if ".1." not in key}, model / "model.safetensors")
    ended = layertap("inspect", model)
    lines = ended.err.splitlines()
    assert (ended.code, len(lines), lines[-1]) == (1, 9, "and 8 more")


def test_inspect_tells_which_state_is_normed_and_of_no_pooler(layertap: Run, model: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    from layertap.cli.model_card import outputs
    from layertap.engine.opening import open_reference
    from layertap.engine.options import ModelReference, Semantics

    reference = ModelReference(
        name=str(model), revision=None, cache_dir=None, local_files_only=True, allow_pickle=False
    )
    facts = open_reference(reference).facts(Semantics())
    assert outputs(facts)[0]["note"] == "hidden_states[3]"
    other = replace(facts, spec=replace(facts.spec, norm_position="pre", pooler=False), pooler="absent")
    notes = {output["name"]: output["note"] for output in outputs(other)}
    assert notes["last_hidden_state"] == "hidden_states[3], after the final norm"
    assert notes["pooler_output"] == "absent: this architecture has none"


def test_inspect_knows_this_machine(layertap: Run, model: Path) -> None:
    torch = pytest.importorskip("torch")
    out = layertap("inspect", model).out
    assert ["torch", f"{torch.__version__},"] in [line.split()[:2] for line in out.splitlines()]
    assert max(map(len, out.split("on this machine")[0].split("weights")[1].splitlines())) <= 100


def test_inspect_knows_the_native_backend(layertap: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    native = pytest.importorskip("layertap.backends.native._native", reason="the native module is not built")
    first, *others = native.instruction_sets()
    machine = " ".join(layertap("inspect", model).out.split("on this machine")[1].split())  # lines are wrapped
    assert f"instruction set {first}{', on request ' if others else ''}{', '.join(others)}" in machine
    assert f"{', '.join(native.precisions(first))} on the processor" in machine
    assert "not here" not in machine
    monkeypatch.setattr("layertap.backends.here.native_absence", lambda: "native is not built: no compiler")
    machine = " ".join(layertap("inspect", model).out.split("on this machine")[1].split())
    assert "not here native is not built: no compiler" in machine


def test_explain_says_what_would_run(layertap: Run, model: Path) -> None:
    native = pytest.importorskip("layertap.backends.native._native", reason="the native module is not built")

    def backend(*options: str) -> str:
        return str(layertap("explain", "-m", model, *options).out.splitlines()[1])

    asked = ("--backend", "native", "--threads", "1", "--instruction-set", "avx2")
    assert backend(*asked) == "backend native, avx2, 1 thread"
    assert backend("--backend", "torch") == "backend torch"
    best = default_instruction_set(native.instruction_sets(), "float32")
    assert backend("--backend", "native").startswith(f"backend native, {best}, ")
    assert backend("--device", "cuda", "--backend", "native") == (
        "backend none: native runs on the processor, not on cuda"
    )
    assert "only the native backend has precision 'int8'" in backend("--precision", "int8", "--backend", "torch")


def test_inspect_of_the_default_model(layertap: Run, minilm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_torch(monkeypatch)
    out = layertap("inspect").out
    assert out.startswith("sentence-transformers/all-MiniLM-L6-v2\n")
    assert "last_hidden_state.mean.normalize, of at most 256 tokens" in out
    assert "never needed  embeddings.position_ids" in out


def test_inspect_refuses(refused: Run, tmp_path: Path) -> None:
    assert "no such model folder" in refused(1, "inspect", "./nowhere")
    assert "no config.json" in refused(1, "inspect", tmp_path)


def test_explain_with_an_input(layertap: Run, model: Path, texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_torch(monkeypatch)  # nothing runs, so nothing is needed
    ended = layertap("explain", texts, "-m", model, "-f", "v = hidden_states[1].mean")
    assert (ended.code, ended.err) == (0, "")
    assert "blocks           1 of 3" in ended.out
    assert "for 5 texts" in ended.out
    assert f"lengths: from the first 5 texts of {texts}" in ended.out
    off = layertap("explain", texts, "-m", model, "-f", "v = hidden_states[1].mean", "--disable-rule", "stop")
    assert "blocks           3 of 3" in off.out


def test_explain_without_an_input(layertap: Run, model: Path) -> None:
    ended = layertap("explain", "-m", model, "--max-length", "16")
    assert ended.code == 0, ended.err
    assert "last_hidden_state.mean  float32 [32] a text  of at most 16 tokens" in ended.out
    assert "lengths: texts of 64 tokens are assumed" in ended.out


def test_explain_estimates_the_number_of_texts_of_a_large_file(
    layertap: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layertap.data.survey.SURVEY_BYTES", 1 << 21)
    source = tmp_path / "in.txt"
    source.write_text("a good film about a river and its bank\n" * 200_000)
    out = layertap("explain", source, "-m", model).out
    words = next(line for line in out.splitlines() if line.startswith("lengths:"))
    assert words.startswith(f"lengths: from the first 1,000 texts of {source}; the ")
    assert words.endswith(" in all are estimated from its size")
    estimated = int(words.split("; the ")[1].split()[0].replace(",", ""))
    assert 100_000 <= estimated <= 210_000


def test_explain_of_an_input_without_texts(layertap: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").touch()
    ended = layertap("explain", tmp_path / "in.txt", "-m", model)
    assert ended.code == 0, ended.err
    assert "has no texts" in ended.out


def test_explain_refuses_what_extract_refuses(refused: Run, model: Path, texts: Path) -> None:
    assert "out of range" in refused(2, "explain", texts, "-m", model, "-f", "hidden_states[7].mean")
    assert "no such file" in refused(1, "explain", texts.with_name("none.txt"), "-m", model)
    assert "no column 'x'" in refused(2, "explain", _jsonl(texts), "-m", model, "--text-column", "x")


def _jsonl(texts: Path) -> Path:
    path = texts.with_suffix(".jsonl")
    path.write_text('{"text": "a"}\n')
    return path

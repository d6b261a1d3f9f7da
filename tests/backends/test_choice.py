"""Which backend runs what, and what is said where one does not."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from layertap.backends import here
from layertap.backends.choice import choose, require_backend
from layertap.backends.facts import BackendRequest
from layertap.errors import BackendError, OptionError
from layertap.models.spec import Convolution

PRECISIONS = {"amx": ["float32", "float32-high", "bfloat16", "int8"], "avx2": ["float32", "float32-high"]}
KERNELS = SimpleNamespace(
    instruction_sets=lambda: list(PRECISIONS),
    available_threads=lambda: 6,
    precisions=lambda name: PRECISIONS[name],
)


def request_of(**options):
    return BackendRequest(**({"backend": "auto", "device": "cpu", "precision": "float32"} | options))


@pytest.fixture
def convolved_spec(tiny_spec):
    return replace(tiny_spec, convolution=Convolution(kernel_size=3, activation="gelu"))


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine with both backends, whatever this one has; returns how to take one away."""
    missing = set()

    def installed(name):
        if name == "torch":
            return None if "torch" in missing else SimpleNamespace()
        return None if "native" in missing else SimpleNamespace()

    monkeypatch.setattr(here, "find_spec", installed)
    monkeypatch.setattr(here, "import_module", lambda _: KERNELS)
    return missing.add


def test_auto_takes_native_where_it_runs_the_model(tiny_spec):
    chosen = choose(tiny_spec, request_of())
    assert (chosen.backend, chosen.instruction_set, chosen.threads) == ("native", "avx2", 6)
    assert str(chosen) == "native, avx2, 6 threads"
    assert str(choose(tiny_spec, request_of(threads=1, instruction_set="amx"))) == "native, amx, 1 thread"


def test_float32_has_the_bits_of_all_machines_unless_another_set_is_named(tiny_spec):
    assert choose(tiny_spec, request_of()).instruction_set == "avx2"
    for precision in ("float32-high", "bfloat16", "int8"):
        assert choose(tiny_spec, request_of(precision=precision)).instruction_set == "amx"


def test_x86_stands_for_the_best_set_of_vectors(tiny_spec):
    assert choose(tiny_spec, request_of(instruction_set="x86")).instruction_set == "avx2"
    with pytest.raises(OptionError, match="x86-64 processors, and the precision is float32-high; choose float32"):
        choose(tiny_spec, request_of(instruction_set="x86", precision="float32-high"))


def test_auto_says_why_it_takes_torch(convolved_spec):
    chosen = choose(convolved_spec, request_of())
    assert (chosen.backend, chosen.instruction_set, chosen.threads) == ("torch", "", None)
    assert str(chosen) == "torch: native does not run a convolution"
    assert str(choose(convolved_spec, request_of(precision="float16"))).startswith(
        "torch: native has no float16 with amx"
    )
    assert str(choose(convolved_spec, request_of(device="cuda"))) == "torch"


def test_what_is_named_is_taken_or_refused(tiny_spec, convolved_spec):
    assert str(choose(tiny_spec, request_of(backend="torch"))) == "torch"
    assert choose(tiny_spec, request_of(backend="native")).backend == "native"
    with pytest.raises(BackendError, match=r"^native does not run a convolution$"):
        choose(convolved_spec, request_of(backend="native"))
    with pytest.raises(OptionError, match=r"^native runs on the processor, not on cuda:0$"):
        choose(tiny_spec, request_of(backend="native", device="cuda:0"))


@pytest.mark.parametrize("only", [{"precision": "int8"}, {"precision": "float32-high"}, {"instruction_set": "amx"}])
def test_what_only_native_has_is_never_left_out(tiny_spec, convolved_spec, only, machine):
    assert choose(tiny_spec, request_of(**only)).backend == "native"
    with pytest.raises(OptionError, match="only the native backend has "):
        choose(tiny_spec, request_of(backend="torch", **only))
    with pytest.raises(BackendError, match=r"only the native backend has .*, and native does not run a convolution"):
        choose(convolved_spec, request_of(**only))
    machine("native")
    with pytest.raises(BackendError, match=r"only the native backend has .*, and native is not built"):
        choose(tiny_spec, request_of(**only))


def test_precisions_go_by_the_instruction_set(tiny_spec):
    assert choose(tiny_spec, request_of(precision="bfloat16")).backend == "native"
    with pytest.raises(OptionError, match="native has no int8 with avx2; it has float32, float32-high"):
        choose(tiny_spec, request_of(backend="native", precision="int8", instruction_set="avx2"))
    with pytest.raises(OptionError, match="no instruction set 'sse' on this machine; it has amx, avx2"):
        choose(tiny_spec, request_of(backend="native", instruction_set="sse"))


def test_threads_of_torch_are_the_process_s(tiny_spec, convolved_spec):
    with pytest.raises(OptionError, match=r"threads 2: torch runs the model, .*set_num_threads\(2\) sets them"):
        choose(tiny_spec, request_of(backend="torch", threads=2))
    with pytest.raises(OptionError, match="runs the model here, since native does not run a convolution"):
        choose(convolved_spec, request_of(threads=2))


def test_without_native(tiny_spec, machine):
    machine("native")
    assert str(choose(tiny_spec, request_of())).startswith("torch: native is not built: `pip install -v`")
    with pytest.raises(BackendError, match="native is not built"):
        choose(tiny_spec, request_of(backend="native"))
    with pytest.raises(BackendError, match="native is not built"):
        require_backend("native")
    require_backend("auto")
    require_backend("torch")
    assert list(here.absences()) == ["native"]


def test_without_torch(tiny_spec, convolved_spec, machine):
    machine("torch")
    assert choose(tiny_spec, request_of()).backend == "native"
    with pytest.raises(BackendError, match=r"native does not run a convolution.*: pip install 'layertap\[torch\]'"):
        choose(convolved_spec, request_of())
    with pytest.raises(BackendError, match=r"pip install 'layertap\[torch\]'"):
        choose(tiny_spec, request_of(backend="torch"))
    with pytest.raises(BackendError, match=r"pip install 'layertap\[torch\]'"):
        require_backend("torch")
    require_backend("auto")
    require_backend("native")
    assert list(here.absences()) == ["torch"]


def test_without_both(tiny_spec, machine):
    machine("torch")
    machine("native")
    with pytest.raises(BackendError, match=r"not built: .*; torch can: pip install 'layertap\[torch\]'"):
        choose(tiny_spec, request_of())
    with pytest.raises(BackendError, match=r"pip install 'layertap\[torch\]'"):
        require_backend("auto")
    assert here.installed() == ()
    assert list(here.absences()) == ["native", "torch"]


def test_a_module_that_cannot_be_loaded(tiny_spec, monkeypatch):
    def broken(_):
        raise ImportError("GLIBCXX_3.4.99 not found")

    monkeypatch.setattr(here, "import_module", broken)
    assert str(choose(tiny_spec, request_of())) == "torch: native cannot be loaded: GLIBCXX_3.4.99 not found"


def test_a_processor_without_any_instruction_set(tiny_spec, monkeypatch):
    monkeypatch.setattr(here, "import_module", lambda _: SimpleNamespace(instruction_sets=list))
    assert str(choose(tiny_spec, request_of())) == "torch: native needs a processor with AVX2"

from collections.abc import Sequence
from typing import Any

def instruction_sets() -> list[str]: ...
def available_threads() -> int: ...
def compiler() -> str: ...
def precisions(instruction_set: str) -> list[str]: ...

class Segments:
    def __init__(self, *, begin: Any, end: Any, offsets: Any, weights: Any) -> None: ...

class Capture:
    def __init__(
        self,
        *,
        layers: Sequence[int],
        fold: str = "sum",
        weights: Sequence[float] | None = None,
        segments: int | None = None,
        reduce: str | None = None,
        pooler: bool = False,
        unnormed: bool = False,
        attention: str | None = None,
        heads: Sequence[int] | None = None,
        out: Any,
    ) -> None: ...

_Dense = tuple[Any, Any]  # weight, and bias or None
_Norm = tuple[Any, Any] | None
_Table = tuple[Any, str]  # rows, and the name of their dtype

class Encoder:
    def __init__(
        self,
        *,
        instruction_set: str,
        precision: str,
        hidden_size: int,
        num_attention_heads: int,
        num_key_value_heads: int,
        intermediate_size: int,
        embedding_size: int,
        hidden_act: str,
        layer_norm_eps: float,
        pre_norm: bool,
        rms_norms: bool,
        gated: bool,
        projection_first: bool,
        layers: list[tuple[int, int, int]],
        frequencies: list[Any],
    ) -> None: ...
    def load_embeddings(
        self,
        *,
        words: _Table,
        positions: _Table | None = None,
        types: _Table | None = None,
        norm: _Norm = None,
        projection: _Dense | None = None,
        distance_vectors: Any = None,
        distance_norm: _Norm = None,
        distance_bias: Any = None,
    ) -> None: ...
    def add_block(
        self,
        *,
        query: _Dense,
        key: _Dense,
        value: _Dense,
        attention_output: _Dense,
        intermediate: _Dense,
        output: _Dense,
        gate: _Dense | None = None,
        attention_norm: _Norm = None,
        feed_forward_norm: _Norm = None,
        distance_keys: _Dense | None = None,
        distance_queries: _Dense | None = None,
    ) -> None: ...
    def set_final_norm(self, norm: _Norm) -> None: ...
    def set_pooler(self, dense: _Dense) -> None: ...
    def reach_distances(self, vectors: Any) -> None: ...
    def run(
        self,
        *,
        input_ids: Any,
        position_ids: Any,
        token_type_ids: Any,
        cu_seqlens: Any,
        stop: int,
        top_rows: Any,
        captures: list[Capture],
        segments: list[Segments],
        threads: int,
    ) -> None: ...
    def stage_seconds(self) -> dict[str, float]: ...
    @property
    def bytes(self) -> int: ...

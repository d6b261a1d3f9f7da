from typing import Any

def instruction_sets() -> list[str]: ...
def available_threads() -> int: ...
def compiler() -> str: ...
def precisions(instruction_set: str) -> list[str]: ...

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
    def set_embeddings(
        self,
        *,
        words: Any,
        words_type: str,
        positions: Any,
        positions_type: str,
        types: Any,
        types_type: str,
        norm_weight: Any,
        norm_bias: Any,
        projection: Any,
        projection_bias: Any,
    ) -> None: ...
    def add_block(
        self, *, weights: list[Any], biases: list[Any], norms: list[Any], distance_keys: Any, distance_queries: Any
    ) -> None: ...
    def set_distances(self, *, vectors: Any, norm_weight: Any, norm_bias: Any) -> None: ...
    def reach_distances(self, vectors: Any) -> None: ...
    def set_distance_bias(self, bias: Any) -> None: ...
    def set_final_norm(self, weight: Any, bias: Any) -> None: ...
    def set_pooler(self, weight: Any, bias: Any) -> None: ...
    def run(
        self,
        *,
        input_ids: Any,
        position_ids: Any,
        token_type_ids: Any,
        cu_seqlens: Any,
        stop: int,
        top_rows: Any,
        captures: list[tuple[object, ...]],
        segments: list[tuple[object, ...]],
        threads: int,
    ) -> None: ...
    def stage_seconds(self) -> dict[str, float]: ...
    @property
    def bytes(self) -> int: ...

def __getattr__(name: str) -> Any: ...  # kernels on their own, for tests

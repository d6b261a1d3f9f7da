"""A text has the same bits alone, in any mix of requests, and in `layertap extract`."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest

from layertap.server.limits import Limits

WORDS = ["the", "good", "bank", "was", "film", "not", "a", "of", "to", "in", "on", "and", "river", "money"]
FEATURES = (
    "last_hidden_state.mean",
    "hidden_states[2].mean.normalize",
    "hidden_states[1:].layer_mean.cls",
    "hidden_states[:]",
    "last_hidden_state.words(mean)",
)


def texts(generator: random.Random, count: int) -> list[str]:
    return [" ".join(generator.choices(WORDS, k=generator.choice((0, 1, 3, 9, 30)))) for _ in range(count)]


@pytest.mark.parametrize("run_tokens", [64, 4096])
def test_random_mixes_of_requests(tiny, serve, run_tokens):
    extractor = tiny.extractor
    if extractor.backend.name != "native":
        pytest.skip("the same bits in any batch are a promise of the native backend")
    served = serve(extractor.reference.name, limits=Limits(run_tokens=run_tokens, queue_seconds=1_000))
    known: dict[tuple[str, str], np.ndarray] = {}
    lock = threading.Lock()
    failed: list[str] = []

    def expected(text: str, feature: str) -> np.ndarray:
        with lock:
            if (text, feature) not in known:
                known[text, feature] = extractor.extract([text], feature)[0]
        return known[text, feature]

    def ask(seed: int) -> None:
        generator = random.Random(seed)
        for _ in range(12):
            feature, own = generator.choice(FEATURES), texts(generator, generator.choice((1, 2, 7, 40)))
            if feature in FEATURES[:3] and generator.random() < 0.5:
                body = {"input": own, "model": f"tiny@{feature}"}
                answer = served.post("/v1/embeddings", body).json()
                rows = [item["embedding"] for item in answer["data"]]
            else:
                answer = served.post("/v1/features", {"texts": own, "features": {"f": feature}}).json()
                rows = [item["features"]["f"] for item in answer["data"]]
            for text, row in zip(own, rows, strict=True):
                other = expected(text, feature)
                if not np.array_equal(np.float32(row).reshape(other.shape), other):
                    failed.append(f"{feature} of {text!r} among {len(own)}, seed {seed}")

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(known) > 300
    # All at once, as `layertap extract` runs them.
    for feature in FEATURES:
        own = [text for text, name in known if name == feature]
        for text, row in zip(own, extractor.extract(own, feature), strict=True):
            np.testing.assert_array_equal(row, known[text, feature])
    served.until_idle()

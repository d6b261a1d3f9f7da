"""Classify the sentiment of sentences by logistic regression on a layer, and find the best layer for it.

    python examples/sentiment.py FOLDER [CACHE]

FOLDER holds SST-2 as `stsa.binary.train.txt` and `stsa.binary.test.txt`, with one sentence per line: a label, a space
and the text. CACHE is a folder for vectors that later runs reuse; by default they are kept in a temporary folder.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from layertap.learn import TextFeatures


def main(folder: Path, cache: str) -> None:
    """Print the accuracy of every layer, and that of the best layer on the test part."""

    def read(part: str) -> tuple[list[str], list[str]]:
        rows = [line.split(" ", 1) for line in (folder / f"stsa.binary.{part}.txt").read_text("utf-8").splitlines()]
        return [text for _, text in rows], [label for label, _ in rows]

    layers = [f"hidden_states[{i}].mean" for i in range(7)]
    model = make_pipeline(TextFeatures(cache=cache, sweep=layers), LogisticRegression(max_iter=1000))
    search = GridSearchCV(model, {"textfeatures__feature": layers}, cv=5).fit(*read("train"))
    for layer, score in zip(layers, search.cv_results_["mean_test_score"], strict=True):
        print(f"{layer}: accuracy {score:.3f} in 5-fold cross-validation")
    print(
        f"{search.best_params_['textfeatures__feature']}: accuracy {search.score(*read('test')):.3f} on the test part"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else temporary)

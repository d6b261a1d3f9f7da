"""The model card of a saved folder: what it holds, where it came from, and how it was checked."""

from __future__ import annotations

from dataclasses import dataclass

from layertap.engine.identity import Provenance
from layertap.saving.check import Certificate
from layertap.words import counted

HEADER = """\
---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags:
- sentence-transformers
- feature-extraction
- layertap
{base}---
"""

BODY = """\
# {feature}

The feature `{feature}` of {model}, saved by layertap {version} as a model of its own: {blocks}.

| | |
|---|---|
| one vector for each text | float32, {size} numbers |
| texts | at most {max_length} tokens, special tokens included{texts} |
| modules | {modules} |
| source | {model}{commit}, {architecture} |
| check | {certificate} |

The check compares this folder, opened by layertap, with the feature of the source. `layertap.json` holds its figures
and the provenance, with a hash of every file of the source.

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/to/this/folder")
vectors = model.encode(["a text", "another"])
```

{terms}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedModel:
    """Facts about a model that was saved.

    Attributes:
        feature: the feature, as text.
        blocks: number of layers that are left, and of all.
        parameters: number of the encoder's values that are left, and of all.
        size: numbers of a vector.
        max_length: tokens of a text at most, special tokens included.
        modules: kinds of the modules, in order.
        default_prompt: text before every text, or "".
        lowercase: texts are lower-cased.
        adapted: name of the model into whose weights the source's LoRA adapter is merged, or None without one.
        certificate: result of the check.
    """

    feature: str
    blocks: tuple[int, int]
    parameters: tuple[int, int]
    size: int
    max_length: int
    modules: tuple[str, ...]
    default_prompt: str
    lowercase: bool
    adapted: str | None
    certificate: Certificate

    def __str__(self) -> str:
        kept, every = self.blocks
        values, all_values = (f"{n / 1e6:,.1f} M" if n >= 1e6 else f"{n:,}" for n in self.parameters)
        return f"{kept} of {counted(every, 'layer')}, {values} of {all_values} parameters"


def model_card(saved: SavedModel, provenance: Provenance) -> str:
    """Return the text of `README.md`."""
    model = provenance.model
    after = f", after the prompt {saved.default_prompt!r}" if saved.default_prompt else ""
    if saved.adapted is None:
        terms = "The license of the source applies to its weights, which are here unchanged."
    else:
        terms = (
            f"The LoRA adapter of the source is merged into the weights of {saved.adapted}; the licenses of both apply."
        )
    is_public = model.location == model.name  # a hub id, and no path of somebody's machine
    return (
        HEADER.format(base=f"base_model: {model.name}\n" if is_public else "")
        + "\n"
        + BODY.format(
            feature=saved.feature,
            model=model.name,
            version=provenance.version,
            blocks=str(saved),
            size=f"{saved.size:,}",
            max_length=f"{saved.max_length:,}",
            texts=after + (", lower-cased" if saved.lowercase else ""),
            modules=", ".join(saved.modules),
            commit=f" at commit {model.commit}" if model.commit else "",
            architecture=model.architecture,
            certificate=str(saved.certificate),
            terms=terms,
        )
    )

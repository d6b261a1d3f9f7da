"""The server that people write: FastAPI around sentence-transformers, with OpenAI's route. A peer of `serve_load`.

uvicorn benchmarks.peers.serve_sentence_transformers:app --port 9000
"""

from __future__ import annotations

import base64
import os
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

app = FastAPI()
model = SentenceTransformer(os.environ.get("MODEL", "sentence-transformers/all-MiniLM-L6-v2"), device="cpu")


class Embeddings(BaseModel):
    """Body of a request in OpenAI's form."""

    input: list[str]
    model: str | None = None
    encoding_format: str = "float"


@app.post("/v1/embeddings")
def embeddings(body: Embeddings) -> Any:
    """Compute one vector per text."""
    vectors = model.encode(body.input, show_progress_bar=False)
    if body.encoding_format == "base64":
        rows: list[Any] = [base64.b64encode(vector.tobytes()).decode() for vector in vectors]
    else:
        rows = vectors.tolist()
    return {"object": "list", "data": [{"index": i, "embedding": row} for i, row in enumerate(rows)]}

"""The page of the server: `/`, and the route that computes the texts that are typed into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from pydantic import Field
from starlette.responses import Response

from layertap.engine.extractor import Extractor
from layertap.engine.variants import lengths_of
from layertap.features.expr import Expr
from layertap.features.naming import parsed
from layertap.learn.exploring.index import CorpusIndex
from layertap.learn.exploring.live import MOST_CHARACTERS, live, token_limit
from layertap.learn.exploring.sentences import DETAILS, able, sentence_features, sentence_from
from layertap.page.assemble import as_html, described, policy
from layertap.page.content import PageArray, PageContent
from layertap.records import Feature, Record
from layertap.server.body import Body, read
from layertap.server.refusals import Refusal
from layertap.server.routes import Route
from layertap.server.state import Call
from layertap.server.wire import json_of, row_of

SENTENCES = "/page/sentence"
LAYERS = "layers"
BROWSER_CHALLENGE = 'Basic realm="layertap: any name, and the key as password", charset="UTF-8"'
"""Makes browsers ask for a name and a password, and send them with each request of the page."""


class SentenceBody(Body):
    """Body of a request to `/page/sentence`."""

    text: str = Field(description="a text")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Page:
    """Page that is served.

    Attributes:
        html: the page, one file in UTF-8.
        extractor: the model, with the options for single texts.
        features: what is computed of a text.
        index: the texts of the page, to compare others with, or None where it has none.
        neighbours: number of nearest texts to find.
    """

    html: bytes
    extractor: Extractor
    features: Mapping[str, Expr]
    index: CorpusIndex | None = None
    neighbours: int = 0

    @classmethod
    def of(
        cls,
        content: PageContent,
        extractor: Extractor,
        *,
        index: CorpusIndex | None = None,
        pooling: str = "mean",
        neighbours: int = 0,
    ) -> Page:
        """Return a page for the content of a file, or of `sentence_page`.

        Args:
            content: what the page shows.
            extractor: the model.
            index: the texts of the page, or None.
            pooling: pooling of each hidden state of these.
            neighbours: number of nearest texts to find.
        """
        own = able(extractor)
        features = sentence_features(own) | ({} if index is None else {LAYERS: f"hidden_states[:].{pooling}"})
        html = as_html(content if "live" in content.facts else live(content, own))
        return cls(html=html, extractor=own, features=parsed(features), index=index, neighbours=neighbours)

    @property
    def routes(self) -> tuple[Route, Route]:
        """Routes of the page. One with texts is given to clients with the key only."""
        return (
            Route(
                method="GET",
                path="/",
                handler=self.show,
                dialect="openai",
                summary="Show what each layer sees",
                content={"text/html": {"type": "string"}},
                public=self.index is None,
                challenge=BROWSER_CHALLENGE,
            ),
            Route(
                method="POST",
                path=SENTENCES,
                handler=self.sentence,
                dialect="openai",
                summary="Compute what the page shows of one text",
                body=SentenceBody,
                statuses=(400, 413, 424, 429),
                challenge=BROWSER_CHALLENGE,
            ),
        )

    async def show(self, call: Call) -> Response:
        """Answer with the whole page."""
        headers = {
            "content-security-policy": f"{policy(live=True)}; frame-ancestors 'none'",
            "cache-control": "no-store",
        }
        size = len(self.html)
        return await call.answer(
            [self.html], size=size, length=size, media_type="text/html; charset=utf-8", headers=headers
        )

    async def sentence(self, call: Call) -> Response:
        """Compute tokens, figures and attentions of one text, its nearest texts, and its places on the maps."""
        text = read(SentenceBody, call.value).text
        await self._check(call, text)
        run = call.state.model.run_of(self.features, details=DETAILS, extractor=self.extractor)
        results = await call.compute(run, [Record(row=0, text=text)])
        answer = await call.aside(lambda: self._answer(text, results), size=1 << 20)
        return await call.answer([answer], size=len(answer))

    async def _check(self, call: Call, text: str) -> None:
        if not text.strip():
            raise Refusal("empty", "The text is empty. Type one.", param="text")
        if len(text) > MOST_CHARACTERS:
            raise Refusal(
                "too_large",
                f"The text has {len(text):,} characters, and this page shows texts of at most {MOST_CHARACTERS:,}. "
                "Shorten it.",
                param="text",
            )
        count = partial(lengths_of, self.extractor.tokenizer, [Record(row=0, text=text)])
        (length,) = await call.state.tokenizing.call(count)
        most = token_limit(self.extractor)
        if length > most:
            raise Refusal(
                "too_large",
                f"The text has {length:,} tokens, and this page shows texts of at most {most:,}. Shorten it.",
                param="text",
            )

    def _answer(self, text: str, results: Mapping[str, Feature]) -> bytes:
        rows: dict[str, PageArray] = {name: np.asarray(row_of(feature, 0)) for name, feature in results.items()}
        sentence = sentence_from(self.extractor, text, rows)
        arrays = dict(sentence.arrays)
        if self.index is not None:
            arrays |= self.index.search(list(rows[LAYERS].astype(np.float32)), self.neighbours)
        value: dict[str, Any] = {
            "sentence": sentence.as_facts(),
            "arrays": {name: described(array) for name, array in arrays.items()},
        }
        return json_of(value)

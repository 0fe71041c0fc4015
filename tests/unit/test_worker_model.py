"""How a model's line ends when the worker does."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from pgstack.worker.model import Configuration, GivenBack, Model


def test_texts_that_come_while_the_worker_stops_are_given_back() -> None:
    """Rows may have been loading when it was told to stop: nobody may wait for them."""

    async def late() -> None:
        session: Any = SimpleNamespace(stopping=asyncio.Event())
        nothing: Any = None
        configuration = Configuration("key", None, "model", None, None)
        model = Model(session, configuration, nothing, nothing)
        session.stopping.set()
        model.give_back()  # the drain does, once
        vector = model.want("row", 1, "vectorizer", b"digest", "text")
        model.pump()
        await asyncio.wait_for(vector, 5)

    with pytest.raises(GivenBack):
        asyncio.run(late())

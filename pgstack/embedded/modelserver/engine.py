"""The backend that runs real models: loads them when asked, unloads them when idle.

A model is loaded by the first request that needs it and stays for ``keep_alive`` seconds after
the last one (default 5 minutes; 0 unloads at once, infinity never).  It is never unloaded under
a request.  A request for a longer context than is loaded (``num_ctx``) loads the model anew;
the old copy goes when its own requests have ended.

Loading and pulling run in threads, so the server answers meanwhile.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pgstack.embedded.modelserver import catalogue, download
from pgstack.embedded.modelserver.backend import (
    ApiError,
    Description,
    Embeddings,
    Finish,
    Piece,
    Running,
    TextRequest,
    not_found,
)
from pgstack.embedded.modelserver.batching import Batcher
from pgstack.embedded.modelserver.catalogue import Model
from pgstack.embedded.modelserver.embedder import MiniLM, TooLong
from pgstack.embedded.modelserver.generator import DEFAULT_CONTEXT, Generator, number
from pgstack.errors import EmbeddedError, ModelNotFound

DEFAULT_KEEP_ALIVE = 300.0


@dataclass(eq=False)
class Loaded:
    """A model in memory.  ``idle_since`` is in the event loop's seconds."""

    model: Model
    runner: Batcher | Generator
    context: int
    keep_alive: float = DEFAULT_KEEP_ALIVE
    users: int = 0
    idle_since: float = 0
    retired: bool = False

    @property
    def expires(self) -> float:
        """Return when it may be unloaded."""
        return 0.0 if self.retired else self.idle_since + self.keep_alive


@dataclass
class Engine:
    """The backend; create it inside or outside the event loop, use it inside."""

    models_dir: Path
    _loaded: list[Loaded] = field(default_factory=list)
    _locks: defaultdict[str, asyncio.Lock] = field(
        default_factory=lambda: defaultdict(asyncio.Lock)
    )
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _reaper: asyncio.Task[None] | None = None

    # -- what there is -----------------------------------------------------------------

    def installed(self) -> list[Description]:
        """Return the catalogue's models that are on the disk."""
        models = catalogue.load()
        return [self._describe(m) for m in models if download.is_installed(m, self.models_dir)]

    def describe(self, name: str) -> Description:
        """Return one installed model, or raise 404."""
        return self._describe(self._model(name))

    def _model(self, name: str) -> Model:
        model = catalogue.find(name)
        if model is None or not download.is_installed(model, self.models_dir):
            raise not_found(name)
        return model

    def _describe(self, model: Model) -> Description:
        modified = (self.models_dir / model.folder).stat().st_mtime
        return Description(
            name=model.name,
            digest=model.digest,
            size=model.installed_bytes,
            family=model.family,
            format=model.format,
            parameter_size=model.parameter_size,
            quantization=model.quantization,
            context_length=model.context_length,
            capabilities=("embedding",) if model.kind == "embedding" else ("completion",),
            modified_at=datetime.fromtimestamp(modified, UTC),
            licence=model.licence,
            info={
                "general.architecture": model.family,
                "general.parameter_count": model.parameters,
                f"{model.family}.context_length": model.context_length,
                f"{model.family}.embedding_length": model.dimensions,
            },
        )

    def running(self) -> list[Running]:
        """Return every loaded model."""
        return [
            Running(self._describe(loaded.model), loaded.model.installed_bytes, _expiry(loaded))
            for loaded in self._loaded
            if not loaded.retired
        ]

    # -- loading and unloading ---------------------------------------------------------

    async def load(self, name: str, keep_alive: float | None) -> None:
        """Load a model, or unload it when ``keep_alive`` is 0."""
        model = self._model(name)
        if keep_alive == 0:
            for loaded in self._loaded:
                loaded.retired |= loaded.model is model
            await self._unload_expired()
            return
        async with self._using(model, keep_alive):
            pass

    @asynccontextmanager
    async def _using(
        self, model: Model, keep_alive: float | None, context: int = 0
    ) -> AsyncIterator[tuple[Loaded, int]]:
        """Hold a model in memory; gives it and the nanoseconds its loading took."""
        started = time.perf_counter_ns()
        async with self._locks[model.name]:
            loaded = self._ready(model, context) or await self._load(model, context)
            loaded.users += 1
        try:
            yield loaded, time.perf_counter_ns() - started
        finally:
            loaded.users -= 1
            loaded.idle_since = asyncio.get_running_loop().time()
            if keep_alive is not None:
                loaded.keep_alive = keep_alive
            self._changed.set()

    def _ready(self, model: Model, context: int) -> Loaded | None:
        """Return the loaded model if its context is long enough; one too short is retired."""
        for loaded in self._loaded:
            if loaded.model is model and not loaded.retired:
                if loaded.context >= context:
                    return loaded
                loaded.retired = True
        return None

    async def _load(self, model: Model, context: int) -> Loaded:
        """Read a model into memory."""
        if self._reaper is None:
            self._reaper = asyncio.create_task(self._reap())
        folder = self.models_dir / model.folder
        runner: Batcher | Generator
        try:
            if model.kind == "embedding":
                runner = Batcher(await asyncio.to_thread(MiniLM, folder))
                context = model.context_length
            else:
                context = max(context, DEFAULT_CONTEXT)
                runner = await asyncio.to_thread(Generator, folder / model.weights, context)
        except Exception as exc:  # the runtimes' own, of every kind
            raise ApiError(
                500, f"cannot load {model.name}: {exc}; pull it again to mend it"
            ) from exc
        loaded = Loaded(model, runner, context)
        self._loaded.append(loaded)
        return loaded

    async def _reap(self) -> None:
        """Unload what nobody has used for its ``keep_alive``."""
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            await self._unload_expired()
            next_expiry = min((x.expires for x in self._loaded if not x.users), default=math.inf)
            wait = None if next_expiry == math.inf else max(0.0, next_expiry - loop.time())
            try:
                await asyncio.wait_for(self._changed.wait(), wait)
            except TimeoutError:
                continue

    async def _unload_expired(self) -> None:
        now = asyncio.get_running_loop().time()
        expired = [x for x in self._loaded if not x.users and x.expires <= now]
        for loaded in expired:
            self._loaded.remove(loaded)
        for loaded in expired:
            await loaded.runner.close()

    async def close(self) -> None:
        """Unload everything."""
        if self._reaper is not None:
            self._reaper.cancel()
        loaded, self._loaded = self._loaded, []
        for one in loaded:
            await one.runner.close()

    # -- work --------------------------------------------------------------------------

    async def embed(
        self, name: str, texts: list[str], *, truncate: bool, keep_alive: float | None
    ) -> Embeddings:
        """Return one vector a text."""
        async with self._using(self._model(name), keep_alive) as (loaded, load_ns):
            if not isinstance(loaded.runner, Batcher):
                raise ApiError(400, f'"{name}" does not support embeddings')
            try:
                vectors, tokens = await loaded.runner.embed(texts, truncate=truncate)
            except TooLong:
                raise ApiError(400, "the input length exceeds the context length") from None
        return Embeddings(vectors, tokens, load_ns)

    async def write(self, request: TextRequest) -> AsyncGenerator[Piece | Finish]:
        """Write an answer: pieces, then one finish."""
        model = self._model(request.model)
        wanted = int(number(request.options, "num_ctx") or 0)
        context = min(wanted, model.context_length)
        async with self._using(model, request.keep_alive, context) as (loaded, load_ns):
            if not isinstance(loaded.runner, Generator):
                raise ApiError(400, f'"{request.model}" does not support generate')
            async for piece in loaded.runner.write(request, load_ns):
                yield piece

    async def pull(self, name: str) -> AsyncGenerator[dict[str, Any]]:
        """Install a model in a thread; closing the iterator cancels it."""
        stop = download.Cancellation()
        steps: asyncio.Queue[download.Progress | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(step: download.Progress | None) -> None:
            loop.call_soon_threadsafe(steps.put_nowait, step)

        def run() -> None:
            try:
                for step in download.pull(name, self.models_dir, stop):
                    tell(step)
            finally:
                tell(None)

        thread = asyncio.create_task(asyncio.to_thread(run))
        try:
            while (step := await steps.get()) is not None:
                yield _pull_event(step)
            await thread
        except ModelNotFound:
            raise ApiError(500, "pull model manifest: file does not exist") from None
        except EmbeddedError as exc:
            raise ApiError(500, str(exc)) from None
        finally:
            stop.cancel()
            await asyncio.wait({thread})
            if not thread.cancelled():
                thread.exception()  # seen: what it raised was told above, or nobody listens

    async def delete(self, name: str) -> None:
        """Unload a model and remove it from the disk."""
        model = self._model(name)
        await self.load(name, 0)
        try:
            await asyncio.to_thread(download.remove, model, self.models_dir)
        except (OSError, EmbeddedError) as exc:
            raise ApiError(500, str(exc)) from None


def _expiry(loaded: Loaded) -> datetime | None:
    if math.isinf(loaded.keep_alive):
        return None
    now = datetime.now(UTC)
    if loaded.users:
        return now + timedelta(seconds=loaded.keep_alive)
    return now + timedelta(seconds=loaded.expires - asyncio.get_running_loop().time())


def _pull_event(step: download.Progress) -> dict[str, Any]:
    """Return a step as Ollama's progress object."""
    if not step.total:
        return {"status": step.status}
    sizes = {"total": step.total, "completed": step.completed}
    return {"status": step.status, "digest": step.digest, **sizes}

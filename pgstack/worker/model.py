"""One model: texts in, vectors out, as many at a time as it takes well.

Texts of all vectorizers that use the model in the same way wait in one line, where rows take
turns.  Calls are made of what stands at its head, several at once:

    how big     as many characters as the model needs :data:`CALL_SECONDS` for, as measured,
                and at most :data:`MOST_TEXTS` texts
    how many    up to the worker's concurrency; halved when the server cannot keep up (429, 503,
                timeout), one more after each round of calls that went well
    when        after the questions from SQL, for which somebody waits

Whose fault a failure is (:class:`~pgstack.errors.Fault`) decides what follows.

    the server's    the texts go back to the head of the line; the breaker opens: nothing is
                    sent for a while, each time longer, until the model answers a plain probe.
                    Over a long rest no text is kept: its row may change, get another model,
                    or be another worker's that does reach the server
    busy            the same without a probe, which might be all that it takes in a while
    the input's     the call is halved until the text at fault stands alone
    unclear         the same, but a text is blamed only if the model answers the probe
                    meanwhile, or did so between this time and the last: a server that fails
                    for all is not their fault, one that ends may be.  When two calls broke
                    side by side, a text that was alone in one is tried with no call beside it
    the set-up's    every text that waits is refused: no try can help
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass, field, replace
from typing import Any

from pgstack import queries
from pgstack.errors import Fault, ModelServerError, PgstackError
from pgstack.models import EmbedAnswer, ModelServer
from pgstack.vectors import Vector
from pgstack.worker.line import Line, TextKey, Wanted
from pgstack.worker.session import Session, log, wait_for

CALL_SECONDS = 1.0
MOST_TEXTS = 512
FIRST_CHARACTERS = 16_000
LEAST_CHARACTERS = 2_000
MOST_CHARACTERS = 1_000_000
MOST_WAITING = 50_000_000  # characters in line, above which no more rows are claimed
REMEMBERED = 4096  # vectors, for equal texts that come soon after one another; and suspicions
LONGEST_PAUSE = 30.0
KEEP_SECONDS = 0.7  # the first rest is shorter, the second longer
LEAVE_SECONDS = 0.01  # for a request to be sent, at most
LOOK_SECONDS = 0.5  # whether a server that is gone is back
YIELD_SECONDS = 5.0  # a flood of questions may hold bulk work up that long, not for ever
DIGEST_SECONDS = 60.0
GIVE_UP_AFTER = 5  # pauses in a row, for a worker that runs once
PROBE = "pgstack asks whether this model answers"


class GivenBack(Exception):
    """The text was not embedded, by nobody's fault: the model rests, or the worker ends."""


@dataclass(frozen=True)
class Suspicion:
    """What is held against a text.  It outlasts a rest, when the text itself is given back.

    ``at_most``: texts in a call with it.  ``apart``: and no call beside that one.  ``broke``: it
    broke a call of its own, and the model broke on the probe as well.
    """

    at_most: int = MOST_TEXTS
    apart: bool = False
    broke: bool = False


UNSUSPECTED = Suspicion()


@dataclass(frozen=True)
class Configuration:
    """A model as vectorizers ask for it; ``key`` is the same for the same calls."""

    key: str
    base_url: str | None
    model: str
    options: dict[str, Any] | None
    keep_alive: str | None


@dataclass
class Model:
    """See the module's text.  ``spawn`` starts a task that lives as long as the worker's work."""

    session: Session
    configuration: Configuration
    server: ModelServer
    spawn: Callable[[Coroutine[Any, Any, None]], object]
    line: Line = field(default_factory=Line)
    known: OrderedDict[TextKey, asyncio.Future[Vector]] = field(default_factory=OrderedDict)
    suspects: OrderedDict[TextKey, Suspicion] = field(default_factory=OrderedDict)
    loading: int = 0  # batches of rows that are on their way here
    calls: int = 0  # under way
    apart: bool = False  # the one under way wants none beside it
    broken: int = 0  # calls so far for which a text might be to blame
    judging: int = 0  # of these, those of which it is being found out: nothing is sent meanwhile
    limit: float = 2.0  # two, so that one that hangs does not stop the others
    characters: float = FIRST_CHARACTERS
    mean_characters: float = 500.0
    failures: int = 0  # calls in a row that found the server unable
    resting: float = 0.0  # for how many seconds; 0: it does not
    given_up: str | None = None  # why, for a worker that runs once
    called_at: float = 0.0
    leaving: asyncio.Event | None = None  # set once the last call's request has been sent
    _digest: str | None = None
    _digest_until: float = 0.0
    _digest_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    # ------------------------------------------------------------------ for the drain

    def want(
        self, row: Hashable, vectorizer: int, name: str, digest: bytes, text: str
    ) -> asyncio.Future[Vector]:
        """Return the vector of a row's text, some time; equal texts of a vectorizer share one."""
        key = (vectorizer, digest)
        vector = self.known.get(key)
        if vector is not None and not (vector.done() and vector.exception()):
            self.known.move_to_end(key)
            return vector
        vector = asyncio.get_running_loop().create_future()
        _remember(self.known, key, vector)
        self.mean_characters += (len(text) - self.mean_characters) / 32
        self.line.append(row, Wanted(key, name, text, vector))
        return vector

    @property
    def texts_a_call(self) -> int:
        """How many texts fit into a call, if they are as long as the last ones were."""
        return max(1, min(MOST_TEXTS, int(self.characters / max(self.mean_characters, 1))))

    @property
    def has_room(self) -> bool:
        """Whether more rows should be claimed, because there will soon be too little to send."""
        if self.resting or self.line.characters > MOST_WAITING:
            return False
        coming = self.line.room_taken + self.loading * self.texts_a_call
        return coming < self.texts_a_call * (int(self.limit) + 1)

    def pump(self) -> None:
        """Send what may be sent."""
        # A worker that stops may have been loading rows: they come when all else is given back.
        if self.resting > KEEP_SECONDS or self.session.stopping.is_set():
            self.give_back()
        while self.line and self._may_call():
            self.apart = self._held(self.line.head).apart
            self.calls += 1
            self.called_at = time.monotonic()
            self.leaving = asyncio.Event()
            self.spawn(self._call(self._take(), self.leaving))

    def give_back(self) -> None:
        """Give up on what is still in line."""
        while self.line:
            _set_exception(self.line.pop(), GivenBack())

    async def digest(self) -> str | None:
        """Return what the server calls the model's weights; None: it does not say."""
        async with self._digest_lock:
            if time.monotonic() >= self._digest_until:
                try:
                    self._digest = await self.server.digest(self.configuration.model)
                except PgstackError as exc:  # the last one will do
                    log.debug("the model server does not list its models: %s", exc)
                self._digest_until = time.monotonic() + DIGEST_SECONDS
        return self._digest

    # ------------------------------------------------------------------ calls

    def _may_call(self) -> bool:
        session = self.session
        most = int(min(self.limit, session.concurrency))
        if self.resting or self.judging or self.calls >= most or session.stopping.is_set():
            return False
        if self.calls and (self.apart or self._held(self.line.head).apart):
            return False
        return not session.asking or time.monotonic() - self.called_at > YIELD_SECONDS

    def _take(self) -> list[Wanted]:
        """Take the texts of the next call off the line."""
        taken: list[Wanted] = []
        characters = 0
        at_most = MOST_TEXTS
        while self.line and len(taken) < (
            at_most := min(at_most, self._held(self.line.head).at_most)
        ):
            characters += len(self.line.head.text)
            if taken and characters > self.characters:
                break
            taken.append(self.line.pop())
        return taken

    def _held(self, wanted: Wanted) -> Suspicion:
        """Return what is held against a text."""
        return self.suspects.get(wanted.key, UNSUSPECTED)

    async def _call(self, taken: list[Wanted], sent: asyncio.Event) -> None:
        texts = [wanted.text for wanted in taken]
        broken_before = self.broken
        began = time.monotonic()
        try:
            try:
                answer = await self._ask(texts, sent)
            finally:
                self.calls -= 1
                self.session.moved.set()
            seconds = time.monotonic() - began
            await self._pump_first()
            result = self.server.read_embeddings(
                answer, self.configuration.model, len(texts), seconds
            )
        except PgstackError as exc:
            self._enter(taken, 0, time.monotonic() - began, failed=True)
            await self._failed(taken, exc, broken_before)
        except asyncio.CancelledError:
            for wanted in taken:
                _set_exception(wanted, GivenBack())
            raise
        else:
            for wanted, vector in zip(taken, result.packed, strict=True):
                self.suspects.pop(wanted.key, None)
                if not wanted.vector.done():
                    wanted.vector.set_result(vector)
            self._enter(taken, result.prompt_tokens, seconds)
            self._answered(seconds)
        self.pump()

    async def _pump_first(self) -> None:
        """Send the next call before this one's answer is read: the server need not wait."""
        self.pump()
        if self.leaving is not None:
            await wait_for(self.leaving, LEAVE_SECONDS)

    async def _ask(self, texts: list[str], sent: asyncio.Event | None = None) -> EmbedAnswer:
        ours = self.configuration
        seconds = self.session.model_timeout
        try:
            async with asyncio.timeout(seconds):
                return await self.server.ask_embeddings(
                    ours.model, texts, options=ours.options, keep_alive=ours.keep_alive, sent=sent
                )
        except TimeoutError:
            late = ModelServerError(f"the model did not answer within {seconds:g} s")
            late.fault = Fault.UNCLEAR
            raise late from None

    def _answered(self, seconds: float) -> None:
        """Make the next calls bigger or smaller, and allow more at a time."""
        self.limit = min(max(2.0, self.session.concurrency), self.limit + 1 / self.limit)
        if self.line:  # else the call was small for want of texts, which tells nothing
            fit = self.characters * CALL_SECONDS / max(seconds, 0.001)
            bounded = min(max(fit, self.characters / 2), self.characters * 2)
            self.characters = min(max(bounded, LEAST_CHARACTERS), MOST_CHARACTERS)
        self.failures = 0

    def _enter(
        self, taken: list[Wanted], tokens: int, seconds: float, *, failed: bool = False
    ) -> None:
        """Enter a call in the ledger, shared out among the vectorizers it was for."""
        for vectorizer, count in Counter(wanted.vectorizer for wanted in taken).items():
            share = count / len(taken)
            self.session.meter.call(
                vectorizer,
                self.configuration.model,
                texts=0 if failed else count,
                tokens=round(tokens * share),
                seconds=seconds * share,
                failed=failed,
            )

    # ------------------------------------------------------------------ failures

    async def _failed(self, taken: list[Wanted], exc: PgstackError, broken_before: int) -> None:
        match exc.fault:
            case Fault.SETUP:
                for wanted in (*taken, *self.line):
                    self._refuse(wanted, exc)
                self.line = Line()
            case Fault.SERVER | Fault.BUSY:
                self._put_back(taken)
                await self._rest(exc)
            case Fault.INPUT if len(taken) == 1:
                self._refuse(taken[0], exc)
            case Fault.INPUT:
                self._suspect(taken, Suspicion((len(taken) + 1) // 2))
            case _:
                self.broken += 1
                self.limit = max(1.0, self.limit / 2)
                await self._judge(taken, exc, broken_before)

    async def _judge(self, taken: list[Wanted], exc: PgstackError, broken_before: int) -> None:
        """Find out who broke a call: its texts, or a model that breaks on anything."""
        self.judging += 1
        try:
            broken = await self._probe()
        finally:
            self.judging -= 1
        held = self._held(taken[0])
        beside_another = self.broken - broken_before > 1
        if len(taken) > 1:
            self._suspect(taken, Suspicion((len(taken) + 1) // 2))
        elif beside_another:
            self._suspect(taken, Suspicion(1, apart=True))
        elif broken is None or held.broke:
            self._refuse(taken[0], exc)
        else:
            self._suspect(taken, replace(held, at_most=1, broke=True))
        if broken is not None:
            await self._rest(broken)

    async def _probe(self) -> PgstackError | None:
        """Ask the model something plain; return what went wrong."""
        try:
            answer = await self._ask([PROBE])
            self.server.read_embeddings(answer, self.configuration.model, 1, 0.0)
        except PgstackError as exc:
            return exc
        return None

    def _suspect(self, taken: list[Wanted], suspicion: Suspicion) -> None:
        """Put texts back that broke a call, to be sent another way."""
        for wanted in taken:
            _remember(self.suspects, wanted.key, suspicion)
        self._put_back(taken)

    def _put_back(self, taken: list[Wanted]) -> None:
        self.line.put_back(taken)
        if self.session.stopping.is_set():
            self.give_back()

    def _refuse(self, wanted: Wanted, exc: Exception) -> None:
        self.suspects.pop(wanted.key, None)
        _set_exception(wanted, exc)

    async def _rest(self, exc: PgstackError) -> None:
        """Open the breaker: leave the model alone, longer each time, until it answers a probe."""
        self.limit = 1.0
        if self.resting:
            return  # another call that was under way failed as well
        while True:
            self.failures += 1
            if self.session.once and self.failures >= GIVE_UP_AFTER:
                self._give_up(exc)
                return
            self.resting = self._rest_seconds(exc)
            self.pump()
            if not await self._open_breaker(exc):
                break  # no vectorizer uses it any more
            if await self._pause(self.resting) and exc.fault is Fault.SERVER:
                self.failures -= 1
            if self.session.stopping.is_set():
                return
            broken = await self._probe() if exc.fault is not Fault.BUSY else None
            if broken is None or broken.fault in (Fault.INPUT, Fault.SETUP):
                break  # what it says of the probe then is for the vectorizers that use it
            exc = broken
        log.info("%s rests no longer", self.configuration.model)
        await self.session.fetch(queries.BREAKER_CLOSE, *self._where())
        self.resting = 0.0
        self.session.moved.set()

    async def _open_breaker(self, exc: PgstackError) -> bool:
        ours = self.configuration
        log.warning("%s rests for %.1f s: %s", ours.model, self.resting, exc)
        return bool(
            await self.session.value(
                queries.BREAKER_OPEN, *self._where(), ours.key, str(exc), self.resting
            )
        )

    def _rest_seconds(self, exc: PgstackError) -> float:
        pause = min(LONGEST_PAUSE, 0.25 * 2.0 ** min(self.failures, 10))
        pause *= random.uniform(0.75, 1.25)  # noqa: S311 - jitter, not a secret
        return max(pause, exc.retry_after or 0.0)

    def _give_up(self, exc: PgstackError) -> None:
        """Leave the model alone for good: the worker runs once."""
        self.given_up = str(exc)
        self.resting = math.inf
        self.pump()
        self.session.moved.set()

    async def _pause(self, seconds: float) -> bool:
        """Wait, but no longer than until a server that is gone is back; True: it came back."""
        until = time.monotonic() + seconds
        gone = not await self._server_answers()
        while (left := until - time.monotonic()) > 0 and not self.session.stopping.is_set():
            await wait_for(self.session.stopping, min(LOOK_SECONDS, left) if gone else left)
            if gone and await self._server_answers():
                return True
        return False

    async def _server_answers(self) -> bool:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self.server.version()
        except (PgstackError, TimeoutError):
            return False
        return True

    def _where(self) -> tuple[object, ...]:
        # As the vectorizer spells its address: its status is found by that.
        ours = self.configuration
        return self.session.worker, ours.base_url or self.server.url, ours.model


def _remember[V](remembered: OrderedDict[TextKey, V], key: TextKey, value: V) -> None:
    remembered[key] = value
    if len(remembered) > REMEMBERED:
        remembered.popitem(last=False)


def _set_exception(wanted: Wanted, exc: Exception) -> None:
    if not wanted.vector.done():
        wanted.vector.set_exception(exc)
        wanted.vector.exception()  # marks it as seen: who wanted it may be gone

"""The line of texts before a model: rows take turns, and a long one leaves room for others."""

from __future__ import annotations

import asyncio
import random

from pgstack.worker.line import COUNTED, Line, Wanted


def wanted(text: str) -> Wanted:
    return Wanted((1, text.encode()), "docs", text, asyncio.Future(loop=_LOOP))


_LOOP = asyncio.new_event_loop()
_LOOP.close()


def taken(line: Line) -> list[str]:
    texts = []
    while line:
        assert line.head.text == next(iter(line)).text
        texts.append(line.pop().text)
    return texts


def test_rows_take_turns() -> None:
    line = Line()
    for text in ("a1", "a2", "a3", "a4"):
        line.append("a", wanted(text))
    line.append("b", wanted("b1"))
    line.append("c", wanted("c1"))
    line.append("c", wanted("c2"))
    assert taken(line) == ["a1", "b1", "c1", "a2", "c2", "a3", "a4"]


def test_what_is_put_back_goes_first_and_in_order() -> None:
    line = Line()
    for text in ("a1", "a2", "a3"):
        line.append("a", wanted(text))
    line.append("b", wanted("b1"))
    line.put_back([line.pop(), line.pop()])
    assert taken(line) == ["a1", "b1", "a2", "a3"]


def test_a_long_row_counts_little() -> None:
    line = Line()
    for number in range(1000):
        line.append("novel", wanted(f"{number}"))
    assert line.room_taken == COUNTED
    line.append("note", wanted("note"))
    assert line.room_taken == COUNTED + 1


def test_counts_hold_whatever_happens() -> None:
    dice = random.Random(7)
    line = Line()
    for number in range(5000):
        if dice.random() < 0.8:
            line.append(dice.randrange(20), wanted("x" * dice.randrange(9) + f"{number}"))
        elif line:
            count = dice.randrange(1, 6)
            some = [line.pop() for _ in range(count) if line]
            if dice.random() < 0.3:
                line.put_back(some)
        texts = list(line)
        assert line.characters == sum(len(text.text) for text in texts)
        counted = sum(min(len(row), COUNTED) for row in line.rows.values())
        assert line.room_taken == len(line.first) + counted
        assert bool(line) == bool(texts)
    assert len(taken(line)) > 100
    assert (line.room_taken, line.characters) == (0, 0)

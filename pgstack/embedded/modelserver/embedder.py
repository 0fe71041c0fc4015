"""all-MiniLM-L6-v2 on onnxruntime: texts to token ids, token ids to vectors.

The graph (``minilm.onnx``, built by ``scripts/make_minilm_graph.py``) has no weights; they are
fed from the published safetensors file, which stays mapped, not copied.  Everything is float32
and exact to the reference.  Texts longer than 256 tokens, two of them markers, are cut.

Nothing here knows asyncio: the calls block, release the GIL and run in ``batching``'s threads.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from tokenizers import Tokenizer

from pgstack.embedded.modelserver.backend import Vectors

type Ids = list[int]

MAX_TOKENS = 256
# Characters of a text that are looked at.  256 tokens hardly ever span more: only blanks or
# words beyond 100 letters could, and a 10 MB text must not be tokenised for its first page.
MAX_CHARACTERS = 64 * 1024
_GRAPH = Path(__file__).with_name("minilm.onnx")


class TooLong(ValueError):
    """A text exceeds the context length and may not be cut."""


def read_safetensors(path: Path) -> dict[str, Vectors]:
    """Return the float32 tensors of a safetensors file, mapped from the disk.

    The file: 8 bytes little-endian length, a JSON header of that length, the raw numbers.
    """
    data = np.memmap(path, mode="r")
    (length,) = struct.unpack("<Q", data[:8].tobytes())
    start = 8 + length
    header: dict[str, Any] = json.loads(data[8:start].tobytes())
    return {
        name: _tensor(data, start, entry)
        for name, entry in header.items()
        if name != "__metadata__" and entry["dtype"] == "F32"
    }


def _tensor(data: npt.NDArray[np.uint8], start: int, entry: dict[str, Any]) -> Vectors:
    begin, end = entry["data_offsets"]
    flat: Vectors = data[start + begin : start + end].view(np.float32)
    return flat.reshape(entry["shape"])


class MiniLM:
    """The loaded model."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        # The file asks for padding and cutting to 128, which is not what the model is for.
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        # The weights must outlive the session: it reads them where they are.
        self._weights = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(tensor)
            for name, tensor in read_safetensors(folder / "model.safetensors").items()
            if not name.startswith("pooler.")  # trained for another task
        }
        self._session = onnxruntime.InferenceSession(
            _GRAPH, self._options(), providers=["CPUExecutionProvider"]
        )

    def _options(self) -> Any:
        """Return settings for a small shared machine: every call is computed by its caller.

        Two calls at a time keep two cores as busy as one call on two threads, a little busier
        when others use them as well: no thread waits for another at every step.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        # The arena keeps the largest batch ever seen for good.
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        options.log_severity_level = 3
        options.add_external_initializers(list(self._weights), list(self._weights.values()))
        return options

    def tokenize(self, texts: Sequence[str], *, truncate: bool) -> list[Ids]:
        """Return the token ids of each text; raise TooLong rather than cut when not allowed."""
        encoded = self._tokenizer.encode_batch_fast([text[:MAX_CHARACTERS] for text in texts])
        if not truncate and any(encoding.overflowing for encoding in encoded):
            raise TooLong
        return [encoding.ids for encoding in encoded]

    def embed(self, batch: Sequence[Ids]) -> Vectors:
        """Return one vector of length 1 a text; the texts are padded to the longest."""
        longest = max(len(ids) for ids in batch)
        input_ids = np.zeros((len(batch), longest), np.int64)
        mask = np.zeros_like(input_ids)
        for row, ids in enumerate(batch):
            input_ids[row, : len(ids)] = ids
            mask[row, : len(ids)] = 1
        feed = {"input_ids": input_ids, "attention_mask": mask}
        vectors: Vectors = self._session.run(["embedding"], feed)[0]
        return vectors

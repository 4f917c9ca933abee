"""Fuzz targets: the files that this package reads. Only documented errors may come of damage, noticed or not."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import struct
from pathlib import Path

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.engine import session_file
from sabiyarn_edge.engine.decoder import Decoder
from sabiyarn_edge.generator import find_model
from sabiyarn_edge.model_folder import config, graph_nodes, weights_file
from sabiyarn_edge.options import generation_config
from sabiyarn_edge.text import tokenizer
from tests.campaigns.fuzz.mutations import damaged, damaged_json
from tests.campaigns.fuzz.target import Target

__all__ = ["READERS"]

NANO = find_model("nano")


class Session(Target):
    """A saved session; half of the damaged ones have a right checksum."""

    module = session_file

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._generator = EdgeGenerator.from_pretrained(NANO, num_threads=1)
        session = self._generator.session([5, 6, 7, 8])
        session.generate(max_new_tokens=2)
        session.save(folder / "whole")
        self._whole = (folder / "whole").read_bytes()

    def whole(self) -> bytes:
        return self._whole

    def make(self, rng: random.Random) -> bytes:
        content = self._whole
        if rng.random() < 0.5:
            size = struct.unpack_from("<I", content, 8)[0]
            header = damaged_json(content[12 : 12 + size], rng)
            start = 12 + size + -(12 + size) % 64
            content = content[:8] + struct.pack("<I", len(header)) + header
            content += bytes(-len(content) % 64) + self._whole[start:]
        else:
            content = damaged(content, rng)
        if rng.random() < 0.5:
            content = content[:-32] + hashlib.sha256(content[:-32]).digest()
        return content

    def read(self, content: bytes) -> None:
        self.parse(content)
        self._generator.load_session(self.folder / "session").generate([5], max_new_tokens=1)

    def parse(self, content: bytes) -> None:
        path = self.folder / "session"
        path.write_bytes(content)
        # In this thread, whose lines are counted; the engine's has nothing to do.
        engine = self._generator._engine
        session_file.load_session(path, engine.decoder, engine.rows)


class WeightsHeader(Target):
    """The header of weights.bin, and the hash over all of it."""

    module = weights_file

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        content = (NANO / "weights.bin").read_bytes()
        size = struct.unpack_from("<I", content, 8)[0]
        header = json.loads(content[12 : 12 + size])
        names = [*header["tensors"]][:3]  # the first few tensors: a small file of the same kind
        header["tensors"] = {name: {**header["tensors"][name]} for name in names}
        for i, name in enumerate(names):
            header["tensors"][name] |= {"offset": 4096 + 64 * i, "nbytes": 64}
        self._header = json.dumps(header, separators=(",", ":")).encode()

    def whole(self) -> bytes:
        return self._file(self._header)

    @staticmethod
    def _file(header: bytes) -> bytes:
        content = weights_file.MAGIC + struct.pack("<I", len(header)) + header
        return content + bytes(max(4096 + 192 - len(content), 0))

    def make(self, rng: random.Random) -> bytes:
        if rng.random() < 0.6:
            return self._file(damaged_json(self._header, rng))
        return super().make(rng)

    def read(self, content: bytes) -> None:
        path = self.folder / "weights.bin"
        path.write_bytes(content)
        weights_file.WeightsHeader.read(path)
        weights_file.hash_weights_file(path)


class _InFolder(Target):
    """One file of nano's folder, the others whole."""

    name: str

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.model = folder / "model"
        self.model.mkdir()
        for path in NANO.iterdir():
            if path.is_file() and path.name != self.name:
                shutil.copyfile(path, self.model / path.name)

    def whole(self) -> bytes:
        return (NANO / self.name).read_bytes()

    def read(self, content: bytes) -> None:
        (self.model / self.name).write_bytes(content)
        generator = EdgeGenerator.from_pretrained(self.model, num_threads=1)
        generator.generate([5, 6, 7], max_new_tokens=2)


class Config(_InFolder):
    """config.json."""

    name, module = "config.json", config

    def make(self, rng: random.Random) -> bytes:
        return damaged_json(self.whole(), rng)

    def parse(self, content: bytes) -> None:
        (self.model / self.name).write_bytes(content)
        config.ModelConfig.load(self.model)


class Graph(_InFolder):
    """decoder.onnx, as onnxruntime reads it behind our checks: config.json has the hash of the damaged file."""

    name, module = "decoder.onnx", config

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._config = json.loads((NANO / "config.json").read_bytes())

    def read(self, content: bytes) -> None:
        self._vouch_for(content)
        super().read(content)

    def parse(self, content: bytes) -> None:
        self._vouch_for(content)
        (self.model / self.name).write_bytes(content)
        Decoder(self.model, num_threads=1)

    def _vouch_for(self, content: bytes) -> None:
        self._config["sabiyarn_edge"]["graph_hash"] = hashlib.sha256(content).hexdigest()
        (self.model / "config.json").write_text(json.dumps(self._config), encoding="utf-8")


class GenerationOptions(Target):
    """generation_config.json, and a call with what it says."""

    module = generation_config

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._generator = EdgeGenerator.from_pretrained(NANO, num_threads=1, max_length=64)

    def whole(self) -> bytes:
        return json.dumps(
            {
                "eos_token_id": [0, 3],
                "pad_token_id": 0,
                "do_sample": True,
                "temperature": 0.8,
                "top_k": 40,
                "top_p": 0.9,
                "min_p": 0.01,
                "typical_p": 0.9,
                "repetition_penalty": 1.2,
                "no_repeat_ngram_size": 3,
                "bad_words_ids": [[4], [5, 6]],
                "sequence_bias": [[[7], -1.5], [[8, 9], 2.0]],
                "num_beams": 1,
                "num_return_sequences": 2,
                "length_penalty": 1.1,
                "max_new_tokens": 4,
                "min_new_tokens": 1,
                "max_time": 60.0,
                "stop_strings": ["ab"],
                "suppress_tokens": [10],
                "forced_eos_token_id": 0,
                "seed": 5,
                "penalty_window": 20,
            }
        ).encode()

    def make(self, rng: random.Random) -> bytes:
        return damaged_json(self.whole(), rng)

    def parse(self, content: bytes) -> generation_config.GenerationConfig:
        (self.folder / "generation_config.json").write_bytes(content)
        return generation_config.GenerationConfig.load(self.folder)

    def read(self, content: bytes) -> None:
        options = self.parse(content)
        for overflow in ("error", "slide"):
            if overflow == "error" or (options.max_new_tokens or 0) <= 300:
                self._generator.generate([5, 6, 7], options, overflow=overflow)


class TokenizerFile(Target):
    """tokenizer.json, a small one of the kind of SabiYarn's."""

    module = tokenizer

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        values = json.loads((NANO / "tokenizer.json").read_bytes())
        vocab = [*values["model"]["vocab"].items()][:300]
        values["model"]["vocab"] = dict(vocab)
        known = values["model"]["vocab"]
        pairs = [pair if isinstance(pair, list) else pair.split(" ") for pair in values["model"]["merges"]]
        values["model"]["merges"] = [
            pair for pair in pairs if all(t in known for t in (*pair, "".join(pair)))
        ]
        self._whole = json.dumps(values).encode()

    def whole(self) -> bytes:
        return self._whole

    def make(self, rng: random.Random) -> bytes:
        return damaged_json(self._whole, rng)

    def read(self, content: bytes) -> None:
        path = self.folder / "tokenizer.json"
        path.write_bytes(content)
        found = tokenizer.Tokenizer.from_file(path)
        ids = found.encode("ọ́ Gbogbo")
        found.decode(ids)
        if found.vocab_size < 1000:
            len(found.native_bytes(found.vocab_size))


class GraphNodes(Target):
    """The nodes of an ONNX file, read without onnx."""

    module = graph_nodes
    allowed = (ValueError,)

    def whole(self) -> bytes:
        return (NANO / "decoder.onnx").read_bytes()

    def read(self, content: bytes) -> None:
        nodes = graph_nodes.read_nodes(content)
        graph_nodes.nodes_per_layer(nodes)
        graph_nodes.stored_matrices(nodes)


READERS: dict[str, type[Target]] = {
    "session": Session,
    "weights_header": WeightsHeader,
    "config": Config,
    "generation_config": GenerationOptions,
    "tokenizer": TokenizerFile,
    "graph_nodes": GraphNodes,
    "graph": Graph,
}

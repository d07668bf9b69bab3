"""Executes the target fpga's instructions in plain Python: what the hardware must do, without its pipelines."""

from __future__ import annotations

from typing import Any

import numpy as np

from nervecord.compiler.body.evaluate import Evaluator
from nervecord.compiler.ops import Array
from nervecord.targets.fpga.instructions import ROWS, Microcode


class Interpreter:
    """A microcode with its memories. Each value is checked against the width that the hardware gives it."""

    def __init__(self, code: Microcode) -> None:
        self.code = code
        self.lists = np.zeros(max(code.lists.depth, 1), np.int64)
        self.values = np.zeros(max(code.values.depth, 1), np.int64)
        self.counts = np.zeros(max(code.counts.depth, 1), np.int64)
        self.held = np.zeros(max(code.held.depth, 1), np.int64)
        self.sums = np.zeros(max(code.sum.depth, 1) * code.lanes, np.int64)
        self.out = np.zeros(max(code.out.depth, 1), np.int64)
        self.state: dict[int, dict[str, Array]] = {}
        self.pointers = [0] * len(code.pointers)
        self._gave: dict[str, dict[int, Array]] = {}
        self.bodies = [Evaluator(cell.equations.body) for cell in code.cells]

    def block(self, numbers: Array) -> Array:
        code = self.code
        self.held[: len(numbers)] = numbers
        self._gave = {}
        self._move("block")
        for k, pointer in enumerate(code.pointers):
            if pointer.event == "row":
                self.pointers[k] = 0
        for each in code.instructions[: code.loop]:
            self._execute(each, 0)
        for step in range(code.window):
            for each in code.instructions[code.loop :]:
                if each["first"] <= step <= each["last"]:
                    self._execute(each, step)
            self._move("step")
        return self.out[: code.outputs].copy()

    def gave(self, name: str) -> Array:
        """What a population gave in the last block, (window, n); 0 in the steps in which it does not work."""
        size = next(cell.size for cell in self.code.cells if cell.name == name)
        nothing = np.zeros(size, np.int64)
        return np.stack([self._gave.get(name, {}).get(k, nothing) for k in range(self.code.window)])

    def _move(self, event: str) -> None:
        for k, pointer in enumerate(self.code.pointers):
            if pointer.event == event or (event == "step" and pointer.event == "row"):
                self.pointers[k] = (self.pointers[k] + pointer.stride) % pointer.limit

    def _place(self, each: dict[str, int], name: str) -> int:
        pointer = each.get(f"{name}_pointer", 0)
        if not pointer:
            return each.get(f"{name}_base", 0)
        moved = self.pointers[pointer - 1] + each[f"{name}_offset"]
        return each[f"{name}_base"] + moved % each[f"{name}_limit"]

    def _execute(self, each: dict[str, int], step: int) -> None:
        if each["kind"] == ROWS:
            self._rows(each)
        else:
            self._vector(each, step)

    def _rows(self, each: dict[str, int]) -> None:
        code, at = self.code, self._place(each, "list")
        shift = code.shifts[each["shift"]]
        for k in range(int(self.counts[self._place(each, "count")])):
            source = int(self.lists[at + k])
            value = int(self.values[at + k]) if each["valued"] else 1
            if each["sparse"]:
                first, length = code.table[each["table"] + source]
                rows = code.columns[first : first + length]
            else:
                first, length = each["weights"] + source * each["length"], each["length"]
                rows = list(range(length))
            for row, word in zip(rows, code.words[first : first + length], strict=True):
                product = word * value
                product = product << shift if shift >= 0 else product >> -shift
                self.sums[row * code.lanes : (row + 1) * code.lanes] += product
        assert np.abs(self.sums).max(initial=0) <= code.sum.most

    def _vector(self, each: dict[str, int], step: int) -> None:
        code, size = self.code, each["size"]
        x = np.zeros(size, np.int64)
        if each["summed"]:
            shift = code.sums[each["sum_shift"]]
            x += self.sums[:size] << shift if shift >= 0 else self.sums[:size] >> -shift
            self.sums[:] = 0
        if each["takes"]:
            at = self._place(each, "held")
            x += self.held[at : at + size]
        if each.get("keeps"):
            at = self._place(each, "kept")
            self.held[at : at + size] = x
            assert np.abs(x).max(initial=0) <= code.held.most
            return
        number = each["cell"]
        cell, body = code.cells[number], self.bodies[number]
        fresh = number not in self.state or step == each["clears"]
        state = {name: np.zeros(size, np.int64) for name in body.body.kept} if fresh else self.state[number]
        for k, value in enumerate(body.values(state, x)):
            low, high = cell.equations.ranges[k]
            assert low <= np.min(value), (cell.name, k)
            assert np.max(value) <= high, (cell.name, k)
        y = body.step(state, x)
        self.state[number] = state
        if not cell.entrance:
            self._gave.setdefault(cell.name, {})[step] = y
        if each.get("sends"):
            at, indices = self._place(each, "list"), np.flatnonzero(y)
            self.lists[at : at + len(indices)] = indices
            if each["valued"]:
                self.values[at : at + len(indices)] = y[indices]
                assert np.abs(y).max(initial=0) <= code.values.most
            self.counts[self._place(each, "count")] = len(indices)
        if each.get("reads") and each["read_first"] <= step <= each["read_last"]:
            at = self._place(each, "out")
            before: Any = self.out[at : at + size] if each["adds"] and step != each["read_first"] else 0
            self.out[at : at + size] = before + y
            assert np.abs(self.out).max(initial=0) <= max(code.out.most, 1)

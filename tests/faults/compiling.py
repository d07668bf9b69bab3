"""Compiling that is killed: each file is the old one or the new one, and the next compiling leaves nothing else."""

from __future__ import annotations

from pathlib import Path

from faults.scenes import Chosen, Scene, contents, is_draft, strangers
from faults.traps import TRAPS, set_traps

from nervecord.cli.command import main

POLICY = Path(__file__).resolve().parents[2] / "zoo" / "cartpole" / "policy.nir"


class Compiling(Scene):
    """`nervecord compile` over the files of an earlier one: a program, a dump of each step, what another tool reads."""

    name = "compile"

    def prepare(self) -> None:
        self.begin()
        assert self._compile("--weight-bits", "4") == 0
        self.old = contents(self.out)
        calls = set_traps(None)
        assert self._compile() == 0
        self.new = contents(self.out)
        assert set(self.old) == set(self.new)
        assert self.old != self.new
        self.moments = tuple((trap, k + 1) for trap in TRAPS for k in range(calls[trap]))

    @property
    def out(self) -> Path:
        """What it writes into."""
        return self.folder / "out"

    def begin(self) -> None:
        super().begin()
        self.out.mkdir()
        for name, data in getattr(self, "old", {}).items():
            path = self.out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def _compile(self, *more: str) -> int:
        words = ["-o", str(self.out / "policy.nervecord"), "--dump", str(self.out / "passes"), "--netx"]
        return main(["compile", str(POLICY), *words, "--emit", str(self.out / "netx"), *more, "--quiet"])

    def work(self, moment: Chosen | None) -> int:
        if moment is not None:
            set_traps(moment)
        return self._compile()

    def look(self) -> list[str]:
        files = contents(self.out)
        wrong = [f"lost: {name}" for name in self.old if name not in files]
        for name, data in files.items():
            if name not in self.old:
                wrong += [] if is_draft(name) else [f"strange: {name}"]
            elif data not in (self.old[name], self.new[name]):
                wrong.append(f"half: {name}")
        return wrong

    def over(self) -> list[str]:
        files = contents(self.out)
        wrong = strangers(self.out, self.new)
        wrong += [f"lost: {name}" for name, data in self.new.items() if files.get(name) != data]
        for folder in ("cwd", "tmp"):
            wrong += strangers(self.folder / folder, set())
        return wrong

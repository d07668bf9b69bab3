"""Several processes that learn as one.

torchrun starts W processes; each steps num_envs / W of the environments and holds the same networks. What one process
would compute over all environments is here computed over all processes:

- gradients: the mean over the union of the processes' minibatches, weighted by their sizes, which differ as steps that
  only reset an environment are left out;
- mean and deviation of advantages, observations and discounted returns, over the union of the steps.

Sums of all processes come out of one reduction, equal bit for bit everywhere, so the copies of the networks stay equal
bit for bit; `Group.check_equal` proves it at each checkpoint.

With one process nothing here calls torch.distributed.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nervecord.errors import EngineError, NervecordError
from nervecord.training.processes.launch import Launch, launch

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)
"""Longest wait for another process. The others wait while the first one validates, so it is not short; a process that
died is noticed at once, this is for one that hangs."""


class Group:
    """The processes of one training; the default is this process alone.

    Collective methods must be called by all processes, in the same order. They raise `EngineError` where another
    process died or hangs.
    """

    def __init__(self, place: Launch | None = None) -> None:
        place = Launch() if place is None else place
        self.rank, self.world = place.rank, place.world
        self.local_rank, self.local_world = place.local_rank, place.local_world
        self.joined = False

    @property
    def several(self) -> bool:
        """Whether there are other processes."""
        return self.world > 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def share(self, environments: int) -> int:
        """Environments of one process."""
        return environments // self.world

    def own(self, items: list[T]) -> list[T]:
        """This process's part of a list with an entry for each environment."""
        count = self.share(len(items))
        return items[self.rank * count : (self.rank + 1) * count]

    def device(self, name: str) -> str:
        """The torch device of this process: with several on CUDA each has its own.

        Raises:
            NervecordError: a GPU was named, or the machine has fewer GPUs than processes.
        """
        if not self.several or not name.startswith("cuda"):
            return name
        if name != "cuda":
            raise NervecordError(
                f"is {name!r}, and {self.world} processes need a GPU each", where="--device", hint="use --device cuda"
            )
        if torch.cuda.device_count() < self.local_world:
            raise NervecordError(
                f"{self.local_world} processes on this machine, torch sees {torch.cuda.device_count()} CUDA devices",
                where="--device cuda",
                hint="lower torchrun's --nproc-per-node",
            )
        torch.cuda.set_device(self.local_rank)
        return f"cuda:{self.local_rank}"

    # ----------------------------------------------------------------------------------------------------------------
    # Collectives

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of all processes' tensors, in place."""
        if self.several:
            with _others(self):
                dist.all_reduce(tensor)
        return tensor

    def moments(self, rows: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of the valid ones (n,) bool of all processes' rows (n, size), in float64: their number, mean, and sum of
        squares about it (size,). Mean and squares are 0 where there are none.

        Two passes, the second about the common mean: as exact as in one process, where sums of squares are not.
        """
        rows = torch.where(valid[:, None], rows.double(), 0.0)
        sums = self.sum(torch.cat([rows.sum(0), valid.sum()[None].double()]))
        count = sums[-1]
        mean = sums[:-1] / count.clamp(min=1)
        return count, mean, self.sum(torch.where(valid[:, None], (rows - mean).square(), 0.0).sum(0))

    def mean_gradients(self, parameters: Iterable[nn.Parameter], rows: int) -> None:
        """Replace gradients of means over this process's `rows` by those of the mean over all processes' rows."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.reshape(-1) * rows for g in gradients] + [gradients[0].new_tensor([rows])])
        self.sum(flat)
        flat = flat[:-1] / flat[-1]
        parts = torch.split(flat, [g.numel() for g in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def broadcast(self, module: nn.Module) -> None:
        """Give all processes the first one's parameters and buffers."""
        if self.several:
            with _others(self):
                for tensor in module.state_dict().values():
                    dist.broadcast(tensor, 0)

    def gather(self, value: T) -> list[T]:
        """The values of all processes by rank, on all of them."""
        if not self.several:
            return [value]
        values: list[Any] = [None] * self.world
        with _others(self):
            dist.all_gather_object(values, value)
        return values

    def first(self, make: Callable[[], T]) -> T:
        """What `make` gives in the first process, in all of them; its refusal is raised in all of them too."""
        if not self.several:
            return make()
        answer: list[Any] = [None, None]
        if self.is_first:
            try:
                answer[0] = make()
            except NervecordError as error:
                answer[1] = error
        with _others(self):
            dist.broadcast_object_list(answer, 0)
        if answer[1] is not None:
            raise answer[1]
        result: T = answer[0]
        return result

    def check_equal(self, what: str, digest: str) -> None:
        """Prove that a digest is the same everywhere.

        Raises:
            EngineError: it is not; training on would train several networks at once.
        """
        digests = self.gather(digest)
        if len(dict.fromkeys(digests)) > 1:
            raise EngineError(
                f"{what} differ between the processes ({', '.join(digests)})",
                where="torchrun",
                hint="all machines need the same versions of nervecord and torch, and the same kind of processor",
            )

    def leave(self) -> None:
        """Wait for the others once more, then part from them; nothing happens the second time."""
        if not self.joined:
            return
        self.gather(None)
        self.joined = False
        dist.destroy_process_group()


SOLO = Group()
"""This process alone."""


@contextlib.contextmanager
def join() -> Iterator[Group]:
    """Meet the other processes of this training, where torchrun started any, and part from them at the end.

    Raises:
        EngineError: the others were not met, or one of them died or hung meanwhile.
    """
    place = launch()
    if place.world == 1:
        yield SOLO
        return
    # Functions of this module have the group of the moment it is imported as a default argument, and it is imported by
    # what a training uses. A group that is kept alive so is never parted from: gloo's threads outlive it, drop tensors
    # while the interpreter shuts down, and abort the process.
    import torch.distributed.nn.functional

    group = Group(place)
    with _stoppable(group):
        # Tensors on the CPU go through gloo and those on a GPU through NCCL, which connects when it is first used.
        gpus = torch.cuda.is_available() and dist.is_nccl_available()
        with _others(group):
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=TIMEOUT, rank=place.rank, world_size=place.world
            )
        group.joined = True
        try:
            yield group
            group.leave()
        finally:
            # Parting in an orderly way from a group on NCCL waits for those who do not come any more.
            if group.joined and not gpus:
                group.joined = False
                dist.destroy_process_group()


@contextlib.contextmanager
def _others(group: Group) -> Iterator[None]:
    """Turn what torch says about other processes into our sentence."""
    try:
        yield
    except (RuntimeError, ValueError, EOFError) as error:
        if isinstance(error, NervecordError):
            raise
        reason = str(error).strip().splitlines() or [type(error).__name__]
        # The frames the error came through hold the group, and would keep its threads (see `join`).
        traceback.clear_frames(error.__traceback__)
        raise EngineError(
            f"another process of this training died, or did not answer within {TIMEOUT}; this one "
            f"(rank {group.rank} of {group.world}) stops too: {reason[0][:200]}",
            where="torchrun",
            hint="the process that died says why; --resume continues from the last checkpoint",
        ) from error


@contextlib.contextmanager
def _stoppable(group: Group) -> Iterator[None]:
    """Answer SIGTERM, with which torchrun ends the others when one dies, by an error and thus a sentence."""

    def stop(number: int, frame: object) -> NoReturn:
        raise EngineError(
            f"another process of this training died, or torchrun was told to stop; this one (rank {group.rank} of "
            f"{group.world}) stops too",
            where="torchrun",
            hint="the process that died says why; --resume continues from the last checkpoint",
        )

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

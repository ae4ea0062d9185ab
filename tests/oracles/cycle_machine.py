"""An independent reading of docs/timing.md: the chip stepped cycle by cycle, with tiles, rows of bytes and shares of
the bus spelled out.

Shares no code with isa.timing and emulator.timing: no closed form, no events, no program-order evaluation. Simple and
slow.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from isa.architecture import Engine, Space
from isa.chip import Chip
from isa.replay import Dispatch

DMA = ("ldw", "lda", "sto")
NAMES = (*DMA, "mxu", "vec", "act")


@dataclass
class Times:
    dispatch: int = -1
    start: int = -1
    end: int = -1


@dataclass
class Job:
    """A dispatched word on its way. `before` is how many words of each queue must be complete when it starts."""

    index: int
    word: Dispatch
    before: dict[str, int]
    since: int


@dataclass
class Queue:
    depth: int
    waiting: deque[Job] = field(default_factory=deque)
    issued: int = 0
    flying: deque[tuple[int, int]] = field(default_factory=deque)  # (word, completion), in order
    done: int = 0


class CycleMachine:
    def __init__(self, words: Sequence[Dispatch], chip: Chip) -> None:
        self.words, self.chip = words, chip
        self.times = [Times() for _ in words]
        self.queues = {name: Queue(getattr(chip.queues, name)) for name in NAMES}
        self.transfers: dict[str, tuple[Job, int]] = {}
        self.vector_free = {"vec": 0, "act": 0}
        self.shadow: tuple[Job, list[tuple[int, int]], int, int] | None = (
            None  # job, tiles left, cycle when loaded, rows to stream
        )
        self.stream_end = 0
        self.next = 0
        self.stalled_until = 0

    def run(self) -> list[Times]:
        for now in count():
            again = True
            while again:  # an empty product on an array of one cell takes no time: what waits for it begins at once
                self.move_transfers(now)
                for name in DMA:
                    self.start_transfers(name, now)
                self.start_matrix(now)
                for name in ("vec", "act"):
                    self.start_vector(name, now)
                again = self.retire(now)
            self.dispatch(now)
            idle = (
                self.shadow is None
                and not self.transfers
                and not any(q.waiting or q.flying for q in self.queues.values())
            )
            if idle and self.next == len(self.words) and now >= self.stalled_until:
                return self.times
            self.bus_cycle()
        raise AssertionError

    def retire(self, now: int) -> bool:
        """Count what is complete, in each queue's order. True if anything was."""
        before = [queue.done for queue in self.queues.values()]
        for queue in self.queues.values():
            while queue.flying and queue.flying[0][1] <= now:
                queue.flying.popleft()
                queue.done += 1
        return before != [queue.done for queue in self.queues.values()]

    # dispatch

    def dispatch(self, now: int) -> None:
        if self.next == len(self.words) or now < self.stalled_until:
            return
        word = self.words[self.next]
        before = {name: self.queues[name].issued - n for name, n in zip(NAMES, word.inst.deps, strict=True) if n < 7}
        if word.engine is Engine.CTL:
            masks = {"halt": 63, "fence": word.operands.get("mask", 0)}
            mask = masks.get(word.inst.mnemonic, 0)
            if not self.holds(before) or any(
                mask >> i & 1 and self.queues[n].done < self.queues[n].issued for i, n in enumerate(NAMES)
            ):
                return
            remote = any(view.space is Space.DRAM for view in word.views.values())
            self.stalled_until = now + 1 + (8 + self.chip.dram.latency_cycles if remote else 0)
            self.times[self.next] = Times(now, now, self.stalled_until)
        else:
            queue = self.queues[word.engine.value]
            if queue.issued - queue.done >= queue.depth:
                return
            queue.waiting.append(Job(self.next, word, before, now))
            queue.issued += 1
            self.times[self.next].dispatch = now
        self.next += 1

    def holds(self, before: dict[str, int]) -> bool:
        return all(self.queues[name].done >= number for name, number in before.items())

    def ready(self, name: str, now: int) -> Job | None:
        waiting = self.queues[name].waiting
        return waiting[0] if waiting and waiting[0].since < now and self.holds(waiting[0].before) else None

    def complete(self, name: str, job: Job, at: int) -> None:
        self.times[job.index].end = at
        self.queues[name].flying.append((job.index, at))

    # vector engines

    def start_vector(self, name: str, now: int) -> None:
        job = self.ready(name, now) if self.vector_free[name] <= now else None
        if job is None:
            return
        op, lanes = job.word.operands, getattr(self.chip, name).lanes
        cycles, pending, segment = 0, op.get("planes", 1) * op["rows"] if op["cols"] else 0, 1
        while segment < op["cols"]:
            segment *= 2
        while pending > 0:  # a beat takes one row, or as many whole segments as there are lanes for
            left, room = op["cols"], lanes - segment
            pending -= 1
            while room >= segment and pending > 0:
                room -= segment
                pending -= 1
            while left > 0:
                left -= lanes
                cycles += 1
        if job.word.inst.mnemonic == "vqd" and "am" not in job.word.views and not job.word.empty:
            cycles *= 2
        self.times[job.index].start = now
        self.vector_free[name] = now + cycles + (16 if name == "vec" else 24)
        self.complete(name, job, self.vector_free[name])
        self.queues[name].waiting.popleft()

    # the matrix array: a shadow buffer being loaded, and the array streaming

    def tiles(self, job: Job) -> list[tuple[int, int]]:
        """(cycles of weight load, cycles of streaming) of each tile."""
        op, mxu = job.word.operands, self.chip.mxu
        b, m, n, k = (op.get(name, 1) for name in "bmnk")
        if not b * m * n * k:
            return [(0, 0)]
        step, pace = mxu.rows, 4 if op.get("fmt") == 1 else 1
        if job.word.inst.mnemonic == "mmg":
            wide = "ss" in job.word.views
            step, pace = min(step, 32 * 2 ** op["glog"] // (8 if wide else 1)), 2 if wide else 1
        tall, wide = 2 * k <= mxu.rows, 2 * n <= mxu.cols
        planes, result = b, []
        while planes > 0:
            pair = mxu.split and b > 1 and (tall or wide) and planes > 1
            for _ in range(0, n, mxu.cols):
                for low in range(0, k, step):
                    rows = min(step, k - low) * (2 if pair and tall else 1)
                    load = len(range(0, rows, mxu.weight_rows_per_cycle))
                    result.append((load, m * pace))
            planes -= 2 if pair else 1
        return result

    def start_matrix(self, now: int) -> None:
        moved = True
        while moved:
            moved = False
            if self.shadow is not None and self.shadow[2] <= now and self.stream_end <= now:
                job, tiles, _, rows = self.shadow
                self.stream_end = now + rows
                self.shadow = None
                if tiles:
                    self.load(job, tiles, now)
                else:
                    self.complete("mxu", job, self.stream_end + self.chip.mxu.rows + self.chip.mxu.cols - 2)
                moved = True
            job_or_none = self.ready("mxu", now)
            if self.shadow is None and job_or_none is not None:
                self.times[job_or_none.index].start = now
                self.queues["mxu"].waiting.popleft()
                self.load(job_or_none, self.tiles(job_or_none), now)
                moved = True

    def load(self, job: Job, tiles: list[tuple[int, int]], now: int) -> None:
        load, rows = tiles[0]
        self.shadow = job, tiles[1:], now + load, rows

    # DMA

    def start_transfers(self, name: str, now: int) -> None:
        while name not in self.transfers:
            job = self.ready(name, now)
            if job is None:
                return
            self.queues[name].waiting.popleft()
            self.times[job.index].start = now
            size = self.bus_bytes(job.word)
            if size:
                self.transfers[name] = job, size * 6 * self.chip.clock_hz  # sixths, so that shares are whole
            else:
                self.complete(name, job, now + 8 + self.chip.dram.latency_cycles)

    def bus_cycle(self) -> None:
        """Every transfer gets its share of what the bus moves in one cycle; what the last cycle leaves over is lost."""
        for name, (job, left) in list(self.transfers.items()):
            self.transfers[name] = job, left - 6 * self.chip.dram.bytes_per_second // len(self.transfers)

    def move_transfers(self, now: int) -> None:
        for name, (job, left) in list(self.transfers.items()):
            if left <= 0:
                del self.transfers[name]
                self.complete(name, job, now + 8 + self.chip.dram.latency_cycles)

    def bus_bytes(self, word: Dispatch) -> int:
        op, burst = word.operands, self.chip.dram.burst_bytes
        size = 0
        for view in word.views.values():
            if view.space is Space.DRAM:
                bits, cols = view.dtype.bits, op["cols"] if view.cs else min(op["cols"], 1)
                if word.inst.mnemonic == "gather":
                    runs = [cols * bits] * op["n"]
                else:
                    planes = [
                        merged([(p * view.ps + r * view.rs, cols) for r in range(op["rows"])])
                        for p in range(op["planes"])
                    ]
                    whole = [plane[0] for plane in planes] if all(len(plane) == 1 for plane in planes) else []
                    runs = [
                        length * bits
                        for _, length in (merged(whole) if whole else [run for plane in planes for run in plane])
                    ]
                for run in runs:
                    size += len(range(0, len(range(0, run, 8)), burst)) * burst
        return size


def merged(runs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Runs (first element, length) with neighbours that touch joined."""
    result: list[tuple[int, int]] = []
    for start, length in runs:
        if result and sum(result[-1]) == start:
            result[-1] = result[-1][0], result[-1][1] + length
        else:
            result.append((start, length))
    return result

"""The DRAM port: shared equally, cycle by cycle, by the queues that have a transfer on it. Whole numbers throughout."""

from isa.architecture import DMA_ENGINES, QUEUES
from isa.chip import Chip
from isa.timing import bus, ceil_div

_COLUMN = {QUEUES.index(engine): 2 + i for i, engine in enumerate(DMA_ENGINES)}


class Bus:
    """Transfers on the bus or about to be. `finished` are the (queue, cycle) that the last `advance` brought to an
    end."""

    def __init__(self, chip: Chip) -> None:
        self.rates = bus(chip)
        self.now = 0
        self.waiting: dict[int, tuple[int, int, int]] = {}  # queue: cycle of arrival, instruction, work
        self.active: dict[int, list[int]] = {}  # queue: [work left, instruction]
        self.finished: list[tuple[int, int]] = []
        self.history: list[tuple[int, ...]] = []

    def holds(self, queue: int) -> bool:
        return queue in self.waiting or queue in self.active

    def request(self, queue: int, index: int, at: int, count: int) -> None:
        """A transfer of `count` bytes from cycle `at` on."""
        assert at >= self.now, "a transfer would have begun in the past"
        self.waiting[queue] = at, index, count * self.rates.per_byte

    def advance(self) -> bool:
        """Move on until a transfer ends. False if there is none."""
        while self.waiting or self.active:
            arrival = min((at for at, _, _ in self.waiting.values()), default=None)
            if not self.active:
                assert arrival is not None
                self.now = arrival
            elif self._until(arrival):
                return True
            for queue in [q for q, (at, _, _) in self.waiting.items() if at == self.now]:
                _, index, work = self.waiting.pop(queue)
                self.active[queue] = [work, index]
        return False

    def _until(self, arrival: int | None) -> bool:
        """Run to the next end or arrival, whichever comes first. True if a transfer ended."""
        share = self.rates.shares[len(self.active)]
        step = ceil_div(min(work for work, _ in self.active.values()), share)
        if arrival is not None:
            step = min(step, arrival - self.now)
        row = [self.now, self.now + step, -1, -1, -1]
        self.now += step
        for queue, transfer in self.active.items():
            row[_COLUMN[queue]] = transfer[1]
            transfer[0] -= share * step
        if step:
            self.history.append(tuple(row))
        self.finished = [(queue, self.now) for queue, (work, _) in self.active.items() if work <= 0]
        for queue, _ in self.finished:
            del self.active[queue]
        return bool(self.finished)

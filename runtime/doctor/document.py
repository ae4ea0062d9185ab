"""What `llmcc doctor` finds: records of plain values, which are its JSON too."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Version:
    """A package. `tested` is empty where any version that pip installs is; `fine` is False for one that is missing but
    needed, or outside of what is tested."""

    name: str
    version: str
    tested: str = ""
    fine: bool = True


@dataclass(frozen=True)
class Processor:
    """`features` that matter here; `kernel` computes int8 products in the emulator, `able` are those that could;
    `capability` is what PyTorch takes for its own. `problem` says why no kernel could be chosen."""

    machine: str
    cores: int
    threads: int
    features: tuple[str, ...]
    kernel: str
    able: tuple[str, ...]
    capability: str
    problem: str = ""


@dataclass(frozen=True)
class Folder:
    """A folder that something is kept in; `problem` is why it cannot be written, empty if it can."""

    what: str
    path: str
    problem: str = ""


@dataclass(frozen=True)
class Memory:
    """In bytes: of the machine or the group of processes, free now, and what a program may declare."""

    machine: int
    free: int
    allowed: int


@dataclass(frozen=True)
class Setting:
    """An environment variable that is set, and what that does; `problem` if it cannot be used or spoils results."""

    name: str
    value: str
    does: str
    problem: str = ""


@dataclass(frozen=True)
class Tried:
    """A rule of docs/numerics.md on this machine: elements compared, and how many had other bits. `why` it could not be
    tried."""

    rule: str
    fine: bool
    elements: int
    differing: int
    why: str = ""


@dataclass(frozen=True)
class DoctorDocument:
    """All of it. `fine` is whether llmchip gives the right bits here: the self-test passes, packages that are needed are
    there, a kernel could be chosen. What is only worth knowing is in `remarks`."""

    fine: bool
    versions: tuple[Version, ...]
    processor: Processor
    memory: Memory
    folders: tuple[Folder, ...]
    environment: tuple[Setting, ...]
    self_test: tuple[Tried, ...]
    remarks: tuple[str, ...] = field(default=())

"""The same launch of a program that was compiled again without fusing, so that every node has its value in memory."""

from dataclasses import replace

from isa.image.image import Image
from runtime.debug.points import Point
from runtime.debug.session import Session, Stop


def continued(old: Session, image: Image, node: str) -> tuple[Session, Stop, list[Point]]:
    """The same launch of the unfused `image`, at the first instruction of `node` ("": where the old one stands), with
    the breakpoints that are not addresses of the old program; the others come third."""
    session = old.of(image)
    lost = _take_points(old, session)
    if not node:
        node = _here(old)
    if old.stepper.exit is not None and not node:
        return session, session.run(), lost
    number = session.nodes.numbers.get(node)
    if number is None:
        return session, Stop("start", "at the start of the program"), lost
    points, session.points.points = session.points.points, []  # nothing stops on the way
    stop = session.until(node=number)
    session.points.points = points
    session.points.refresh(session.stepper.memory)
    return session, stop, lost


def _here(session: Session) -> str:
    """The node at which the session stands, or the last that it has reached; "" before the first."""
    stepper = session.stepper
    if not stepper.time or stepper.exit is not None:
        return ""
    number = session.nodes.at(stepper.pc, stepper.indices)
    number = session.latest_node() if number is None else number
    return "" if number is None else session.nodes.debug.nodes[number].name


def _take_points(old: Session, new: Session) -> list[Point]:
    """Breakpoints by node, line and mnemonic go over to the new session; those by address cannot."""
    names, lost = old.nodes.debug.nodes, []
    for point in old.points.points:
        numbers = [new.nodes.numbers[names[n].name] for n in point.nodes if names[n].name in new.nodes.numbers]
        if numbers or point.mnemonic:
            new.points.points.append(replace(point, nodes=frozenset(numbers)))
        else:
            lost.append(point)
    return lost

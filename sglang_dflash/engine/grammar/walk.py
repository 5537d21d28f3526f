"""Leading a grammar along the paths of a proposal and back to where it stood; plain lists, one request at a time."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol


class Cursor(Protocol):
    """Where a request's grammar stands."""

    @property
    def over(self) -> bool:
        """Whether the grammar has ended: nothing is forbidden any more."""
        ...

    def advance(self, token: int) -> bool:
        """Take ``token``; False, and the cursor stays, where the grammar forbids it or is over."""
        ...

    def back(self, steps: int) -> None:
        """Undo the last ``steps`` tokens taken, 1 or more."""
        ...

    def forced(self) -> list[int]:
        """Tokens that must follow here, or spell what must; empty where the grammar leaves a choice."""
        ...


def paths_first(parents: Sequence[int]) -> Iterator[int]:
    """The nodes below the root, each after its parent and before its parent's other children; padding is left out.

    parents: [W], those of a ``Proposal``.
    """
    children: list[list[int]] = [[] for _ in parents]
    for node in range(len(parents) - 1, 0, -1):
        if parents[node] >= 0:
            children[parents[node]].append(node)
    waiting = children[0]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += children[node]


def lead(cursor: Cursor, parents: Sequence[int], step: Callable[[int, int], bool]) -> None:
    """Call ``step(node, parent)`` for every node whose parent was reached, with the cursor after the parent's path.

    ``step`` moves the cursor on to the node and returns True, or leaves it and returns False: the node is not reached.
    The cursor ends where it stood.
    """
    path, reached = [0], {0}
    for node in paths_first(parents):
        parent = parents[node]
        if parent not in reached:
            continue
        steps = len(path) - 1 - path.index(parent)
        if steps:
            cursor.back(steps)
            del path[-steps:]
        if step(node, parent):
            path.append(node)
            reached.add(node)
    if len(path) > 1:
        cursor.back(len(path) - 1)


def visit(cursor: Cursor, tokens: Sequence[int], parents: Sequence[int], see: Callable[[int], None]) -> None:
    """Call ``see(node)``, with the cursor after its path, for every node that the grammar reaches and goes on from."""
    if cursor.over:
        return
    see(0)

    def step(node: int, parent: int) -> bool:
        if not cursor.advance(tokens[node]):
            return False
        if not cursor.over:
            see(node)
        return True

    lead(cursor, parents, step)


def guide(cursor: Cursor, tokens: Sequence[int], parents: Sequence[int]) -> list[int]:
    """``tokens`` [W] of the nodes, with what the grammar forces in the place of what it forbids.

    A forced text is followed to its end once it has begun. Nodes behind a forbidden one stay as they are: none of them
    can be accepted.
    """
    guided, due, given = list(tokens), dict[int, list[int]](), dict[int, set[int]]()

    def step(node: int, parent: int) -> bool:
        taken = given.setdefault(parent, set())
        if due.get(parent) and take(node, due[parent], taken):
            return True
        if cursor.advance(tokens[node]):
            taken.add(tokens[node])
            return True
        if parent in due or cursor.over:
            return False
        due[parent] = cursor.forced()
        return bool(due[parent]) and take(node, due[parent], taken)

    def take(node: int, forced: list[int], taken: set[int]) -> bool:
        token, *rest = forced
        if token in taken or not cursor.advance(token):
            return False
        guided[node] = token
        taken.add(token)
        if rest:
            due[node] = rest
        return True

    lead(cursor, parents, step)
    return guided

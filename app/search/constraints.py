"""How far an output has come with the token sequences that it must have. A state is never changed, only followed."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol


class Progress(Protocol):
    """The constraints that one hypothesis has met or begun."""

    @property
    def bank(self) -> int:
        """Tokens of constraints that it has: hypotheses of the same number compete with each other."""

    @property
    def finished(self) -> bool:
        """Whether it has all constraints, so that it may end."""

    def next_tokens(self) -> Iterable[int]:
        """Tokens that begin a constraint or go on with one."""

    def advance(self, token: int) -> "Progress":
        """The state after one more token."""


@dataclass(frozen=True)
class Ordered:
    """Constraints in the given order, anything between them. A constraint that breaks off starts all of them anew."""

    tokens: tuple[int, ...]  # of all constraints in turn
    ends: tuple[bool, ...]  # whether a constraint ends at this token
    bank: int = 0

    @classmethod
    def start(cls, constraints: Iterable[list[int]]) -> "Ordered":
        sequences = list(constraints)
        tokens = tuple(token for sequence in sequences for token in sequence)
        return cls(tokens, tuple(i == len(each) - 1 for each in sequences for i in range(len(each))))

    @property
    def finished(self) -> bool:
        return self.bank == len(self.tokens)

    def next_tokens(self) -> list[int]:
        again = [self.tokens[0]] if self.bank > 1 else []
        return again if self.finished else [*again, self.tokens[self.bank]]

    def advance(self, token: int) -> "Ordered":
        if self.finished or token == self.tokens[self.bank]:
            return self._at(min(self.bank + 1, len(self.tokens)))
        if self.bank == 0 or self.ends[self.bank - 1]:
            return self
        return self._at(int(token == self.tokens[0]))

    def _at(self, bank: int) -> "Ordered":
        return Ordered(self.tokens, self.ends, bank)


@dataclass(eq=False)
class Node:
    """A token of a trie of constraints."""

    parent: "Node | None" = None
    children: dict[int, "Node"] = field(default_factory=dict)
    ending: int = 0  # constraints that end here
    passing: int = 0  # constraints that end here or further on

    def add(self, sequence: list[int]) -> None:
        node = self
        node.passing += 1
        for token in sequence:
            node = node.children.setdefault(token, Node(node))
            node.passing += 1
        node.ending += 1


@dataclass(frozen=True)
class Unordered:
    """Constraints in any order: a walk through their trie (Hu et al., 2019, sec. 3.2). Each counts once for each time
    it is given."""

    root: Node
    node: Node  # where the walk is; the root: between constraints
    met: Counter[Node]  # constraints that were left behind complete
    walked: Counter[Node]  # steps onto each node that count

    @classmethod
    def start(cls, constraints: Iterable[list[int]]) -> "Unordered":
        root = Node()
        for sequence in constraints:
            root.add(sequence)
        return cls(root, root, Counter(), Counter())

    @property
    def bank(self) -> int:
        return self.walked.total()

    @property
    def finished(self) -> bool:
        return self.met.total() + self._is_complete(self.node, self.met) == self.root.passing

    def next_tokens(self) -> set[int]:
        return self.root.children.keys() | self.node.children.keys()

    def advance(self, token: int) -> "Unordered":
        child = self.node.children.get(token)
        if child is not None and self.walked[child] < child.passing:
            return Unordered(self.root, child, self.met, self.walked + Counter([child]))
        met, walked = self._left()
        child = self.root.children.get(token)
        if child is None or self.walked[child] >= child.passing:  # before it was left, as fairseq counts
            return Unordered(self.root, self.root, met, walked)
        return Unordered(self.root, child, met, walked + Counter([child]))

    def _left(self) -> tuple[Counter[Node], Counter[Node]]:
        """`met` and `walked` after leaving the trie: the longest complete constraint is met, the rest is not."""
        met, walked, node = Counter(self.met), Counter(self.walked), self.node
        while node.parent is not None:
            if self._is_complete(node, met):
                met[node] += 1
                break
            walked[node] -= 1
            node = node.parent
        return met, walked

    @staticmethod
    def _is_complete(node: Node, met: Counter[Node]) -> bool:
        return met[node] < node.ending

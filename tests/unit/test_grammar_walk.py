"""Grammars led along chains and trees: a toy of a language, known whole, says what is right."""

import random

import pytest

from sglang_dflash.engine.grammar.walk import guide, paths_first, visit

END = 0
# Texts of tokens; some force what follows, some leave a choice, one is the start of another.
LANGUAGE = [(5, 6, 7, 8, END), (5, 6, 7, 9, 9, END), (5, 6, 4, END), (5, 6, 4, 4, END), (3, 2, 1, 2, 1, 2, END)]


class Toy:
    """A cursor in ``LANGUAGE``. Forced: every token up to the next choice."""

    def __init__(self, taken=()):
        self.taken, self.moves = list(taken), 0

    def _next(self, taken) -> set[int]:
        return {text[len(taken)] for text in LANGUAGE if len(text) > len(taken) and text[: len(taken)] == tuple(taken)}

    @property
    def over(self) -> bool:
        return self.taken[-1:] == [END]

    def advance(self, token: int) -> bool:
        if self.over or token not in self._next(self.taken):
            return False
        self.taken.append(token)
        self.moves += 1
        return True

    def back(self, steps: int) -> None:
        assert 1 <= steps <= len(self.taken)
        del self.taken[-steps:]
        self.moves += steps

    def forced(self) -> list[int]:
        assert not self.over
        tokens = []
        while len(found := self._next(self.taken + tokens)) == 1:
            tokens += found
        return tokens


def chain(width: int) -> list[int]:
    return list(range(-1, width - 1))


def random_tree(rng: random.Random, width: int) -> list[int]:
    """Parents, some nodes being padding."""
    parents = [-1]
    for node in range(1, width):
        below = [i for i in range(node) if i == 0 or parents[i] >= 0]
        parents.append(-1 if rng.random() < 0.1 else rng.choice(below))
    return parents


def random_tokens(rng: random.Random, parents: list[int], taken) -> list[int]:
    """Right ones mostly, so that paths are long."""
    tokens, paths = [END] * len(parents), {0: list(taken)}
    for node in paths_first(parents):
        path = paths[parents[node]]
        right = sorted(Toy()._next(path))
        tokens[node] = rng.choice(right) if right and rng.random() < 0.8 else rng.randrange(10)
        paths[node] = [*path, tokens[node]]
    return tokens


def path_of(node: int, tokens, parents) -> list[int]:
    path = []
    while node > 0:
        path.insert(0, tokens[node])
        node = parents[node]
    return path


def allowed(path, taken) -> bool:
    return any(text[: len(taken) + len(path)] == (*taken, *path) for text in LANGUAGE)


@pytest.mark.parametrize("seed", range(20))
def test_every_node_is_visited_once_behind_its_parent_and_no_padding(seed):
    parents = random_tree(random.Random(seed), 24)
    order = list(paths_first(parents))
    assert sorted(order) == [node for node in range(1, 24) if parents[node] >= 0]
    assert all(parents[node] == 0 or order.index(parents[node]) < i for i, node in enumerate(order))


@pytest.mark.parametrize("taken", [(), (5,), (5, 6, 7)])
@pytest.mark.parametrize("seed", range(20))
def test_masks_are_asked_for_where_the_grammar_stands_after_the_path(seed, taken):
    rng = random.Random(seed)
    parents = chain(8) if seed % 4 == 0 else random_tree(rng, 24)
    tokens, cursor, seen = random_tokens(rng, parents, taken), Toy(taken), {}
    visit(cursor, tokens, parents, lambda node: seen.update({node: tuple(cursor.taken)}))
    assert cursor.taken == list(taken)
    paths = {n: path_of(n, tokens, parents) for n in range(len(parents)) if n == 0 or parents[n] >= 0}
    right = {n: (*taken, *path) for n, path in paths.items() if allowed(path, taken) and path[-1:] != [END]}
    assert seen == right


def test_a_grammar_that_is_over_is_left_alone():
    cursor = Toy((5, 6, 4, END))
    visit(cursor, [END, 5, 6], chain(3), lambda node: pytest.fail("nothing is forbidden any more"))
    assert guide(cursor, [END, 5, 6], chain(3)) == [END, 5, 6] and cursor.moves == 0


@pytest.mark.parametrize(
    ("taken", "drafted", "guided"),
    [
        ((), [5, 6, 7, 8, END], [5, 6, 7, 8, END]),  # all allowed
        ((), [5, 9, 9, 8, 1], [5, 6, 9, 8, 1]),  # forced, then a choice: the draft's 9 is no choice, the rest is cut
        ((), [5, 1, 7, 2, END], [5, 6, 7, 2, END]),  # the draft goes on behind the forced token
        ((5, 6, 7), [9, 1, 1, 3], [9, 9, END, 3]),  # the end is forced, too; nothing follows it
        ((), [3, 7, 1, 1, 1, 1], [3, 2, 1, 2, 1, 2]),  # a forced text is followed to its end
        ((), [8, 6, 7], [8, 6, 7]),  # a choice: nothing to put in the place of what is forbidden
    ],
)
def test_a_chain_is_guided(taken, drafted, guided):
    cursor = Toy(taken)
    assert guide(cursor, [-5, *drafted], chain(len(drafted) + 1)) == [-5, *guided]
    assert cursor.taken == list(taken)
    # There and back once.
    assert cursor.moves <= 2 * len(drafted)


def test_children_of_a_node_do_not_propose_one_token_twice():
    # 1 -> three children of which the last is right; 6 is forced after 5.
    tokens, parents = [-5, 5, 9, 6, 8, 7, 4], [-1, 0, 1, 1, 1, 3, 2]
    guided = guide(Toy(), tokens, parents)
    assert guided[:3] == [-5, 5, 6]  # the first forbidden child takes what is forced,
    assert guided[6] == 4  # and its own child goes on from there
    assert guided[3:6] == [6, 8, 7]


@pytest.mark.parametrize("seed", range(40))
def test_guided_trees_are_right_as_far_as_they_can_be(seed):
    rng = random.Random(seed)
    parents = random_tree(rng, 24)
    tokens = random_tokens(rng, parents, ())
    guided = guide(cursor := Toy(), tokens, parents)
    assert cursor.taken == []
    for node in paths_first(parents):
        above = path_of(parents[node], guided, parents)
        if guided[node] != tokens[node]:
            assert allowed([*above, guided[node]], ())
            assert Toy(above).forced()[:1] == [guided[node]] or guided[node] in Toy()._next(above)
        elif allowed(above, ()) and not allowed([*above, guided[node]], ()) and above[-1:] != [END]:
            # Left as it is only where there is a choice, or where a brother proposes what is forced.
            forced = Toy(above).forced()
            assert not forced or forced[0] in {guided[n] for n in range(24) if parents[n] == parents[node]}

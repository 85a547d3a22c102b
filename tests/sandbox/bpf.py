"""What a filter of system calls lets through, found by walking every way through its program.

The program is classic BPF over struct seccomp_data (seccomp(2)): loads of one word, comparisons for
equality, jumps forward, answers. Such a program has finitely many ways, and each is a set of words
that were found equal or unequal to constants. So the answer is exact for all 2^416 inputs, and no
call has to be made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

LOAD_WORD, JUMP, JUMP_EQUAL, RETURN = 0x20, 0x05, 0x15, 0x06
ALLOW = 0x7FFF0000
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16

# code, jt, jf, k
Instruction = tuple[int, int, int, int]
# The number of a call, and the whole values of those of its arguments (counted from 0) that it
# needs; the others may be anything.
Call = tuple[int, frozenset[tuple[int, int]]]


class Odd(Exception):
    """A program that is not a list of what is let through."""


@dataclass(frozen=True)
class Known:
    """What a way has found out about the words of the input, by their places in it."""

    equal: dict[int, int] = field(default_factory=dict)
    unequal: dict[int, frozenset[int]] = field(default_factory=dict)

    def outcomes(self, word: int, value: int) -> Iterator[tuple[bool, Known]]:
        """How a comparison may end, and what is known then."""
        if word in self.equal:
            yield self.equal[word] == value, self
            return
        others = self.unequal.get(word, frozenset())
        if value not in others:
            yield True, Known({**self.equal, word: value}, self.unequal)
        yield False, Known(self.equal, {**self.unequal, word: others | {value}})


def allowed(program: Sequence[Instruction], architecture: int, refusal: int) -> set[Call]:
    """Everything that the program lets through; all else gets `refusal`."""
    found = set()
    for known, answer in ends(program):
        if answer == ALLOW:
            found.add(as_call(known, architecture))
        elif answer != refusal:
            raise Odd(f"the answer {answer:#x}")
    return found


def ends(program: Sequence[Instruction]) -> Iterator[tuple[Known, int]]:
    """Each way: what is known at its end, and its answer."""
    ways: list[tuple[int, int | None, Known]] = [(0, None, Known())]
    while ways:
        at, word, known = ways.pop()
        code, jump_true, jump_false, k = program[at]
        if code == LOAD_WORD:
            ways.append((at + 1, k, known))
        elif code == JUMP:
            ways.append((at + 1 + k, word, known))
        elif code == JUMP_EQUAL and word is not None:
            for holds, then in known.outcomes(word, k):
                ways.append((at + 1 + (jump_true if holds else jump_false), word, then))
        elif code == RETURN:
            yield known, k
        else:
            raise Odd(f"the instruction {program[at]} at {at}")


def as_call(known: Known, architecture: int) -> Call:
    """All that is asked of a call that is let through must be equalities of whole arguments."""
    equal = dict(known.equal)
    if any(word not in equal for word in known.unequal):
        raise Odd(f"something is let through because it is not something else: {known}")
    if equal.pop(ARCHITECTURE, None) != architecture:
        raise Odd(f"calls of another architecture are let through: {known}")
    number = equal.pop(NUMBER)
    arguments = set()
    while equal:
        argument = (min(equal) - ARGUMENTS) // 8
        low, high = (equal.pop(ARGUMENTS + 8 * argument + half, None) for half in (0, 4))
        if low is None or high is None:
            raise Odd(f"half of an argument is not looked at: {known}")
        arguments.add((argument, high << 32 | low))
    return number, frozenset(arguments)

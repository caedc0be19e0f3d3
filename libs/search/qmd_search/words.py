"""Words that carry a text's meaning, and those that do not."""

import re

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def words(text: str) -> list[str]:
    """The words of a text as it writes them; hyphens and apostrophes inside belong to a word."""
    return _WORD.findall(text)


STOP_WORDS = frozenset(
    words(
        """
        a about above after again against all also am an and any are aren't as at be because been before being below
        between both but by can can't cannot could couldn't did didn't do does doesn't doing don't done down during
        each either else ever every few for from further get gets getting got had has hasn't have haven't having he
        her here hers him his how however i i'm if in instead into is isn't it it's its itself just let let's like many
        may me might more most much must my myself neither never no nor not now of off often on once one only or other
        others our ours out over own per quite rather really same shall she should shouldn't since so some still such
        than that that's the their theirs them then there there's these they this those though through thus to too
        under until up upon us use used uses using very was wasn't we well were weren't what what's when where whether
        which while who whom whose why will with within without won't would wouldn't yet you your yours
        """
    )
)
"""English words that say nothing about a text's subject."""


def is_stop_word(word: str) -> bool:
    return word.lower().replace("’", "'") in STOP_WORDS


def content_words(text: str) -> list[str]:
    """The words of a text that are no stop words, lower case."""
    return [word.lower() for word in words(text) if not is_stop_word(word)]

"""The word lists of the rubric."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


STOPWORDS = _words("a an and are as be by for in is it of on or that the this to with")
"""Not counted when a hyde text repeats words."""

KEY_TERM_STOPWORDS = _words(
    """
    a about after all also an and any asked at been before being between both but by call can conversation
    discussion do does during each email every few find for from get had has have here how i if in into is its just
    like me meeting more most my no not notes of on only or other out said same show so some such tell than that the
    their then there this through to up very was we were what when where which who why with your
    """
)
"""Words of a query that are no key terms, and no entities for their capital letter alone."""

QUERY_VERB_STOPWORDS = _words(
    """
    about add alternative best between build change check common compare comparing configure connecting convert
    could create debug define delete deploy deploying describe difference disable enable example explain fix good
    help implement implementing install introduction latest list make manage managing migrate migrating monitor
    monitoring need new old optimize optimizing overview performance please possible read recent recommended remove
    resolve resolving review run search set setting settings setup should start stop test troubleshoot
    troubleshooting tutorial typical understand understanding update use using want would write
    """
)
"""Words that are capitalised at the start of a query because they start it, not because they name something."""

FILLER_WORDS = _words("basics overview")
"""Words that make a lex line match less and say nothing, unless the query holds them."""

GENERIC_PHRASES = (
    "details about",
    "find information about",
    "find out about",
    "get information",
    "guide to",
    "help with",
    "how to",
    "information on",
    "learn about",
    "look up",
    "search for",
    "what is",
)
"""Phrases that leave nothing to search for when a lex line holds little else."""

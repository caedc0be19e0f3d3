"""Which licences let a fine-tuned model or its training data be published."""

import difflib

# Identifiers as the Hugging Face Hub writes them; each of these allows changed works to be passed on.
_NAMES = """
    afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda
    bigcode-openrail-m bigscience-bloom-rail-1.0 bigscience-openrail-m creativeml-openrail-m openrail openrail++
    cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0
    cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0
    cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0 ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2
    gemma gfdl gpl gpl-2.0 gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr
    llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 osl-3.0
    pddl postgresql unlicense wtfpl zlib
"""
PUBLISHABLE = frozenset(_NAMES.split())
FORBIDDING = {
    **dict.fromkeys(
        ("cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0"), "it allows no changed work to be passed on"
    ),
    **dict.fromkeys(
        ("apple-amlr", "fair-noncommercial-research-license", "h-research", "intel-research"),
        "it is for research alone",
    ),
    **dict.fromkeys(("", "unknown", "other", "cc"), "it does not say what is allowed"),
}


def licence_problem(identifier: str) -> str | None:
    """Why what stands under a licence cannot be published; None where it can."""
    if identifier in PUBLISHABLE:
        return None
    if reason := FORBIDDING.get(identifier.lower()):
        return f"licence {identifier!r}: {reason}, so nothing may be published under it"
    close = difflib.get_close_matches(identifier.lower(), PUBLISHABLE, n=1)
    hint = f"did you mean {close[0]}?" if close else "write it as the Hub does, such as apache-2.0"
    return f"licence {identifier!r} is unknown; {hint}"

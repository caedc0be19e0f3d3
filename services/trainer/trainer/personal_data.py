"""Traces of real people in a text: mail addresses, phone numbers, bank accounts, house numbers.

Cheap patterns that find what has a form; a person's name has none, so names are for a reader to check.
"""

import re
from collections.abc import Iterator

_MAIL = re.compile(r"(?P<user>[\w.+-]+)@(?P<host>[\w-]+(?:\.[\w-]+)+)")
_RESERVED_HOST = re.compile(r"(?:^|\.)(?:example\.(?:com|net|org)|example|test|invalid|localhost)$", re.IGNORECASE)
"""Names that RFC 2606 and RFC 6761 keep for examples."""
_PHONE = re.compile(
    r"(?<![\w.,/-])(?:"
    r"\+\d(?:[ ()./-]{0,2}\d){8,14}"  # +49 30 1234567
    r"|\(?0\d{2,5}\)?[ /-]\d{3,}(?:[ -]?\d{2,})*"  # 030 1234567
    r"|\(?[2-9]\d{2}\)?[ .-]\d{3}[ .-]\d{4}"  # (212) 664-7665
    r")(?!\w)"
)
_MINIMUM_PHONE_DIGITS = 9
_FICTIONAL_PHONE = re.compile(r"55501\d{2}$|(?:44|^0)2079460\d{3}$|(?:49|^0)3023125\d{3}$")
"""Ranges kept for fiction by the numbering authorities of North America, Britain and Germany."""
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_SPECIMEN_IBANS = ("DE89370400440532013000", "GB82WEST12345698765432", "GB29NWBK60161331926819")
_STREETS = (
    re.compile(
        r"\b\d{1,4}[a-zA-Z]?,? (?:[A-Z][\w'.-]+ ){1,3}"
        r"(?:Street|St|Road|Rd|Avenue|Ave|Lane|Ln|Drive|Dr|Boulevard|Blvd|Terrace|Crescent)\b"
    ),
    re.compile(r"\b[A-ZÄÖÜ][\w-]*(?:straße|strasse|str\.|gasse|allee) ?\d{1,4}\b"),
)


def find_personal_data(text: str) -> Iterator[tuple[str, str]]:
    """Yields what looks like a real person's: (kind, the text). Addresses and numbers made for examples pass."""
    for match in _MAIL.finditer(text):
        if match["user"] != "git" and not _RESERVED_HOST.search(match["host"]):
            yield "mail address", match.group()
    for match in _IBAN.finditer(text):
        account = match.group().replace(" ", "")
        if account not in _SPECIMEN_IBANS and _keeps_checksum(account):
            yield "bank account", match.group()
    for match in _PHONE.finditer(_IBAN.sub("", text)):
        digits = re.sub(r"\D", "", match.group())
        if len(digits) >= _MINIMUM_PHONE_DIGITS and not _FICTIONAL_PHONE.search(digits):
            yield "phone number", match.group()
    for pattern in _STREETS:
        for match in pattern.finditer(text):
            yield "street address", match.group()


def _keeps_checksum(iban: str) -> bool:
    """ISO 13616: the letters as numbers from 10, the first four characters last, modulo 97 is 1."""
    return int("".join(str(int(character, 36)) for character in iban[4:] + iban[:4])) % 97 == 1

import pytest

from trainer.personal_data import find_personal_data


@pytest.mark.parametrize(
    ("text", "kind", "found"),
    [
        ("write to mira.k@posteo.net today", "mail address", "mira.k@posteo.net"),
        ("call +49 30 901820 13 after six", "phone number", "+49 30 901820 13"),
        ("dentist 030 9018 2013, ask for Eva", "phone number", "030 9018 2013"),
        ("office (202) 224-3121", "phone number", "(202) 224-3121"),
        ("transfer to DE68 2105 0170 0012 3456 78", "bank account", "DE68 2105 0170 0012 3456 78"),
        ("parcel to 14 Maple Street", "street address", "14 Maple Street"),
        ("abholen in der Lindenstraße 7", "street address", "Lindenstraße 7"),
    ],
)
def test_what_has_the_form_of_personal_data_is_found(text, kind, found):
    assert list(find_personal_data(text)) == [(kind, found)]


@pytest.mark.parametrize(
    "text",
    [
        "mail bob@example.com or root@db.test",
        "git clone git@github.com:acme/tools.git",
        "call +1 212 555 0142 or +44 20 7946 0018",
        "pay to DE89 3704 0044 0532 0130 00",
        "DE68 2105 0170 0012 3456 79 has a wrong checksum",
        "from 2024-05-01 09:15 to 2024-05-02, 10.8.0.0/24 and 127.0.0.1",
        "open 0900-1700, in the years 1990-2001",
        "Mozart wrote 41 symphonies, Downing Street is in London",
    ],
)
def test_examples_dates_addresses_of_machines_and_years_pass(text):
    assert list(find_personal_data(text)) == []

"""check digits: whether digits are a Chinese ID number or a bank card number."""

_PROVINCES = frozenset(
    [
        "11",
        "12",
        "13",
        "14",
        "15",
        "21",
        "22",
        "23",
        "31",
        "32",
        "33",
        "34",
        "35",
        "36",
        "37",
        "41",
        "42",
        "43",
        "44",
        "45",
        "46",
        "50",
        "51",
        "52",
        "53",
        "54",
        "61",
        "62",
        "63",
        "64",
        "65",
        "71",
        "81",
        "82",
        "83",
    ]
)
_LONGEST_MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def is_like_id_number(digits: str) -> bool:
    """Whether 18 (or the old 15) characters hold a province's code and a birthday, as an ID number does."""
    born = digits[6:14] if len(digits) == 18 else "19" + digits[6:12]
    year, month, day = int(born[:4]), int(born[4:6]), int(born[6:])
    return (
        1900 <= year <= 2099
        and 1 <= month <= 12
        and 1 <= day <= _LONGEST_MONTHS[month - 1]
        and digits[:2] in _PROVINCES
    )


def is_id_number(digits: str) -> bool:
    """Whether this is a Chinese ID number: 18 characters with a true ISO 7064 mod 11-2 check, or the old 15."""
    digits = digits.upper()
    if not is_like_id_number(digits):
        return False
    if len(digits) == 15:
        return True
    weighted = sum(int(digit) * (2 ** (17 - i) % 11) for i, digit in enumerate(digits[:17]))
    return "10X98765432"[weighted % 11] == digits[17]


def is_card_number(text: str) -> bool:
    """Whether 15 to 19 digits, maybe in groups, pass Luhn's check and begin like a bank card."""
    digits = [int(c) for c in text if c.isdecimal()]
    if not 15 <= len(digits) <= 19 or digits[0] not in (3, 4, 5, 6, 9):
        return False
    doubled = [d * 2 - 9 * (d > 4) for d in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0

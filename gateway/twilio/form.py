"""The parameters of Twilio's webhooks: an HTML form in the body of a POST request.

Source: Twilio, "Webhooks"; WHATWG, "application/x-www-form-urlencoded".
"""

from __future__ import annotations

from urllib.parse import parse_qsl

FORM_TYPE = "application/x-www-form-urlencoded"

MAX_FIELDS = 500
"""Twilio sends some thirty, SIP headers of a call among them."""

_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})


class BadForm(ValueError):
    """A form that cannot be read. Its text names the fault and quotes nothing."""


def read(body: bytes, content_type: str, charset: str | None) -> list[tuple[str, str]]:
    """The names and values of a form, in order.

    Args:
        body: Of the request.
        content_type: Without parameters. Another than a form's has none: Twilio also sends JSON,
            whose signature is by its hash.
        charset: As the content type says; None: it does not.

    Raises:
        BadForm: It is in another charset than UTF-8, is not what it claims, or has too many fields.
    """
    if content_type != FORM_TYPE:
        return []
    if charset is not None and charset.lower() not in _CHARSETS:
        raise BadForm("the form's charset is not UTF-8")
    try:
        return parse_qsl(
            body.decode(),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
    except UnicodeDecodeError as error:
        raise BadForm("the form is not UTF-8") from error
    except ValueError as error:
        raise BadForm(f"the form has more than {MAX_FIELDS} fields") from error

"""What the coordinator believes of an answer to a step of a secure sum.

Whatever a site could send to stop the others is refused here, so that it only counts as missing:
keys that it did not sign or that cannot be agreed with, shares for the wrong sites, a part of
another length or type, a signature over another set.
"""

import os
from collections.abc import Sequence

from fedtwin_protocol import secure_messages as sm
from fedtwin_protocol import sum_steps as steps
from fedtwin_protocol.content import content_heads
from fedtwin_protocol.errors import WireError
from fedtwin_protocol.masks import agree
from fedtwin_protocol.secret_sharing import SHARE_BYTES
from fedtwin_protocol.secure_terms import SecureTerms
from fedtwin_protocol.site_key import check_site_signature
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_server.exchange import Admit


def admit_step(
    step: str, label: str, terms: SecureTerms, sites: Sequence[str], values: int
) -> Admit:
    """The judgement of one step's answers.

    Args:
        step: one of `sum_steps.STEPS`.
        label: the sum's.
        terms: what holds for it.
        sites: who took the step before.
        values: numbers in the sum.
    """

    async def admit(site: str, answer: pb.Answer) -> None:
        content = answer.content
        if step == steps.MASKED:
            _check_part(content, terms, values)
            return
        fields = sm.fields_of(content)
        if step == steps.KEYS:
            _check_keys(fields, site, label, terms)
        elif step == steps.SHARES:
            _check_shares(fields, site, sites)
        elif step == steps.CONFIRM:
            signature = sm.raw(fields, "signature", 64)
            body = sm.set_body(label, sites)
            check_site_signature(terms.key(site), sm.SET_PURPOSE, body, signature, site)
        else:
            _check_answer(fields, terms)

    return admit


def _check_keys(fields: sm.Fields, site: str, label: str, terms: SecureTerms) -> None:
    shown = [sm.raw(fields, name, 32) for name in ("mask", "channel", "commitment")]
    signature = sm.raw(fields, "signature", 64)
    body = sm.keys_body(label, site, *shown)
    check_site_signature(terms.key(site), sm.KEYS_PURPOSE, body, signature, site)
    for public in shown[:2]:
        try:
            agree(os.urandom(32), public, "")
        except ValueError as error:
            raise WireError("a public key with which no secret can be agreed") from error


def _check_shares(fields: sm.Fields, site: str, sites: Sequence[str]) -> None:
    others = [name for name in sites if name != site]
    if fields.get("to") != others:
        raise WireError("the shares are not for the other sites of this sum")
    sm.raws(fields, "sealed", len(others))


def _check_part(content: pb.Content, terms: SecureTerms, values: int) -> None:
    found = [
        (head.record, head.name, head.dtype.name, head.shape) for head in content_heads(content)
    ]
    wanted = [("arrays", sm.PART, f"uint{terms.modulus_bits}", (values,))]
    if found != wanted or len(content.records) != 1:
        raise WireError(f"expected {wanted}, got {[item[1:] for item in found[:3]]}")


def _check_answer(fields: sm.Fields, terms: SecureTerms) -> None:
    given = sm.names(fields, "sites", terms.sites, 1)
    shares = sm.raws(fields, "shares", len(given))
    if any(len(share) != SHARE_BYTES for share in shares):
        raise WireError(f"expected shares of {SHARE_BYTES} bytes")

"""One tree of errors, named after who can mend them.

FedtwinError
├── PlanError            the author of a study plan
├── PolicyError          the hospital's policy does not allow it
├── RecordError          the hospital's records or their mapping
├── CohortError          the cohort a study asks for cannot be built
├── BudgetError          the privacy ledger refuses
├── LedgerError          the ledger itself is damaged or cannot be written
├── IdentityError        a certificate, key, name or role
│   └── InvitationError  an invitation is wrong, used or too old
├── SignatureError       a document is not signed by those who must sign it
├── WireError            a message, chunk or array from a peer is not what was agreed
├── LinkError            the network between a node and the coordinator
├── ConfigurationError   a file or an option of our own user
├── LogError             the public log of plans, rounds and releases does not fit together
└── ReleaseError         a published model is not what it claims, or is used wrongly

Every message says what was expected, what was found, where, and how to mend it.
"""


class FedtwinError(Exception):
    """The root: a problem a person can understand and mend."""


class PlanError(FedtwinError):
    """A study plan does not add up."""


class PolicyError(FedtwinError):
    """The hospital's policy does not allow what was asked."""


class RecordError(FedtwinError):
    """Records or their mapping cannot be read as they are."""


class CohortError(FedtwinError):
    """The cohort that a study asks for cannot be built here."""


class BudgetError(FedtwinError):
    """The privacy budget does not allow what was asked."""


class LedgerError(FedtwinError):
    """The privacy ledger is damaged or cannot be written."""


class IdentityError(FedtwinError):
    """A certificate, a key, a name or a role is not acceptable."""


class InvitationError(IdentityError):
    """An invitation is wrong, used or too old."""


class SignatureError(FedtwinError):
    """A document lacks the signatures it needs."""


class WireError(FedtwinError):
    """A peer sent something that was not agreed."""


class LinkError(FedtwinError):
    """The way to the coordinator is blocked or broken."""


class ConfigurationError(FedtwinError):
    """A file or an option given by the user is wrong."""


class ReleaseError(FedtwinError):
    """A published model is not what it claims to be, or is used wrongly."""


class LogError(FedtwinError):
    """What is shown of the public log does not fit what was shown before, or elsewhere."""

"""every error the assistant raises, drawn as a tree in the docstring.

HuatuoError
├── ConfigError          a TOML file or a command line flag is wrong: names file and key
├── InputError           what a person typed cannot be used
│   ├── BadCases         a file of patient cases is damaged
│   ├── Empty            nothing is left after cleaning
│   ├── TooLong          more characters than the limit
│   └── Unreadable       not text (lone surrogates)
├── EngineError          a model gave no finished answer
│   ├── Busy             the model is overloaded: try again later
│   ├── Timeout          a deadline passed
│   ├── Truncated        the answer broke off; what came is not an answer
│   ├── Refused          the model declined, or answered with nothing
│   └── Unavailable      the model is not loaded or cannot be reached
│       └── NoConsent    it is on a server abroad, and no consent allows to send texts there
├── CheckpointError      a model folder cannot be used
│   ├── Damaged          missing, short or altered bytes
│   ├── Untrusted        holds code or pickles
│   └── Mismatch         sound, but not what the config names
├── TrainingError
│   ├── NotFinite        NaN or infinity in loss or weights
│   ├── NoData           nothing to train on
│   └── FrozenMoved      a frozen tensor changed
└── AccessError
    ├── NotSignedIn      no valid session
    ├── ProviderFailed   a sign-in provider did not answer, or not as it must
    ├── Forbidden        the role does not allow it
    ├── LockedOut        too many failed sign-ins
    └── TooFast          a rate limit

A message says what, where and what to do. It never holds a key or a patient's words.
"""


class HuatuoError(Exception):
    """Root of every error raised by `huatuo` and `training`."""


class ConfigError(HuatuoError):
    """A configuration file or flag is wrong; the message names file and key."""


class InputError(HuatuoError):
    """What a person typed cannot be used."""


class BadCases(InputError):
    """A file of patient cases cannot be used; the message names file and item."""


class Empty(InputError):
    """Nothing is left after cleaning."""


class TooLong(InputError):
    """More characters than the limit."""


class Unreadable(InputError):
    """Not valid text."""


class EngineError(HuatuoError):
    """A model gave no finished answer."""


class Busy(EngineError):
    """The model is overloaded; the same question may succeed later."""


class Timeout(EngineError):
    """A deadline passed before the answer was finished."""


class Truncated(EngineError):
    """The answer broke off; what arrived is not an answer."""


class Refused(EngineError):
    """The model declined the request, or answered with nothing."""


class Unavailable(EngineError):
    """The model is not loaded or cannot be reached."""


class NoConsent(Unavailable):
    """The model is on a server abroad and no consent allows to send texts there; nothing was sent."""


class CheckpointError(HuatuoError):
    """A model folder cannot be used."""


class Damaged(CheckpointError):
    """Missing, short or altered bytes."""


class Untrusted(CheckpointError):
    """The folder holds code or pickles, which are never loaded."""


class Mismatch(CheckpointError):
    """Sound files, but not the ones the config names."""


class TrainingError(HuatuoError):
    """A training stage stopped because going on would be wrong."""


class NotFinite(TrainingError):
    """NaN or infinity in loss, gradients or weights."""


class NoData(TrainingError):
    """Nothing to train on."""


class FrozenMoved(TrainingError):
    """A tensor that should be frozen changed."""


class AccessError(HuatuoError):
    """The caller may not do this."""


class NotSignedIn(AccessError):
    """No valid session."""


class ProviderFailed(AccessError):
    """A sign-in provider did not answer, or not as it must. reason: a key of the page's words."""

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(why)
        self.reason = reason


class Forbidden(AccessError):
    """The role of the session does not allow it."""


class LockedOut(AccessError):
    """Too many failed sign-ins; wait."""


class TooFast(AccessError):
    """A rate limit was reached; wait."""

"""Every forgery, by name: what is lied about, and how it comes out."""

from forgeries_of_ledgers import OF_LEDGERS
from forgeries_of_passes import OF_PASSES
from forging import Forgery

FORGERIES: dict[str, Forgery] = {**OF_PASSES, **OF_LEDGERS}

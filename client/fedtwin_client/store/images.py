"""The image store beside the timelines, which takes nothing in of patients who are erased."""

from pathlib import Path

from fedtwin_client.at_rest.keyring import keyring_of
from fedtwin_client.records.images.store import FOLDER, ImageStore
from fedtwin_client.store.consents import Consents


def image_store(store: Path) -> ImageStore:
    """The images of a node.

    Args:
        store: the timeline store's folder.

    Raises:
        ConfigurationError: the keys are not at hand.
    """

    def erased() -> frozenset[int]:
        with Consents(store) as consents:
            return consents.erased()

    return ImageStore(folder=store / FOLDER, keyring=keyring_of(store), erased=erased)

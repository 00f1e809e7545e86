"""The settings in force, and kept where they outlive the panel."""

from BoneSAMLib.interfaces import SettingsStore
from BoneSAMLib.settings import Settings

__all__ = ["KeptSettings"]


class KeptSettings:
    """Settings that are saved with every change.

    Args:
        store: where they are kept; None to forget them.
    """

    def __init__(self, store: SettingsStore | None) -> None:
        self._store = store
        self.now = Settings.from_strings(store.load() if store else {})

    def change(self, settings: Settings) -> None:
        """Use and save other settings. After an error they are as before."""
        if settings != self.now:
            if self._store is not None:
                self._store.save(settings.to_strings())
            self.now = settings

    @property
    def are_kept(self) -> bool:
        """Whether there is a store."""
        return self._store is not None

    def reload(self) -> None:
        """Read what the store holds, if there is one."""
        if self._store is not None:
            self.now = Settings.from_strings(self._store.load())

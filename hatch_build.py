"""Manual pages and completions for the installation, made of the commands' own tables when the wheel is."""

import sys
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class TextsHook(BuildHookInterface):
    """Puts them below ``share``, where man(1) and the shells look."""

    def initialize(self, version, build_data):
        root = Path(self.root)
        sys.path.insert(0, str(root / "src"))
        from torpor.cli import completion, manual

        texts = {place: text for place, text in completion.files().items()}
        texts |= {f"man/{place}": text for place, text in manual.pages().items()}
        for place, text in texts.items():
            path = root / "build" / "share" / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            build_data["shared_data"][str(path)] = f"share/{place}"

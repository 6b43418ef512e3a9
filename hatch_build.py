"""What the wheel has besides the sources: manual pages and completions, and the modules of a dump in one file."""

import sys
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class MadeFilesHook(BuildHookInterface):
    """Texts go below ``share``, where man(1) and the shells look; the bundle lies by its reader, torpor.base.bundle."""

    def initialize(self, version, build_data):
        root = Path(self.root)
        sys.path.insert(0, str(root / "src"))
        from torpor.base import bundle, bundling
        from torpor.cli import completion, manual

        made = root / "build" / bundle.NAME
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_bytes(bundling.pack(root / "src"))
        build_data["force_include"][str(made)] = f"torpor/base/{bundle.NAME}"
        texts = {place: text for place, text in completion.files().items()}
        texts |= {f"man/{place}": text for place, text in manual.pages().items()}
        for place, text in texts.items():
            path = root / "build" / "share" / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            build_data["shared_data"][str(path)] = f"share/{place}"

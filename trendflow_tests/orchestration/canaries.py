"""Words of a video's text that must not be found where its numbers are."""

from __future__ import annotations

import json

# Words that stand nowhere in the program, one for each place a document has.
CANARIES = ("zquixo", "vlympra", "krothune", "gwelfir", "drixomal", "Übelqyx")


def canaries_in(data: bytes) -> set[str]:
    """Canaries in any encoding the store could use; numpy keeps text as UTF-32, JSON may escape it."""
    forms = {canary: (canary, canary.lower(), canary.upper(), json.dumps(canary)[1:-1]) for canary in CANARIES}
    return {
        canary
        for canary in CANARIES
        for form in forms[canary]
        for encoding in ("utf-8", "utf-16-le", "utf-32-le", "unicode-escape")
        if form.encode(encoding) in data
    }

"""The process in which a plan is made: jax reads its environment once, and the user's is not to be changed.

It reads a request, one line of JSON, from standard input, and writes lines of JSON to standard output:
``{"stage": ...}`` as it goes on, and at last ``{"facts": ...}`` or ``{"error": ...}``.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from geonoise_jax import files, runtime
from geonoise_jax.errors import UserError


def main() -> int:
    """Answer one request."""
    runtime.configure()
    # What libraries print must not come between the lines.
    answers, sys.stdout = sys.stdout, sys.stderr

    def answer(**values: Any) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    try:
        answer(facts=_facts(json.loads(sys.stdin.readline()), answer))
    except Exception as error:
        message = runtime.explained(error)
        if message is None:
            raise
        answer(error=message)
    finally:
        files.discard_drafts()
    return 0


def _facts(request: dict[str, Any], answer: Any) -> dict[str, Any]:
    import jax

    from geonoise_jax.planning import facts, programs, topology

    asked = programs.Request(**request)
    place = topology.parse(asked.topology)
    found = jax.devices("cpu")[: place.count] if asked.quick else topology.devices(place)
    if len(found) != place.count:
        raise UserError(f"topology = {asked.topology!r}: the compiler knows {len(found)} devices, not {place.count}")
    return facts.to_json(programs.survey(asked, found, lambda stage: answer(stage=stage)))


if __name__ == "__main__":
    sys.exit(main())

"""python -m moorage.modelhost [serve]"""

import logging
import os
import sys

from moorage.modelhost.errors import StartupError
from moorage.modelhost.front import serve
from moorage.modelhost.settings import Settings


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["serve"]):
        print(
            f"unknown arguments {' '.join(arguments)}: run it as python -m moorage.modelhost serve",
            file=sys.stderr,
        )
        return 2
    try:
        settings = Settings.from_environment(os.environ)
        logging.basicConfig(
            stream=sys.stderr,
            level=settings.log_level,
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        )
        serve(settings)
    except StartupError as error:
        if error.detail:
            print(error.detail, file=sys.stderr)
        print(error.sentence, file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

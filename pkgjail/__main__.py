"""`python -m pkgjail`."""

import sys

from pkgjail.commands import main

if __name__ == "__main__":
    sys.exit(main())

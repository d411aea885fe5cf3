"""`python -m tests.drill` runs the fault drill."""

import sys

from tests.drill.drill import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m tests.drill` runs the fault drill."""

import sys

from tests.drill.drill import main

sys.exit(main())

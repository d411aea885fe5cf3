"""`python -m search` is the command line."""

import sys

from search.cli import main

sys.exit(main())

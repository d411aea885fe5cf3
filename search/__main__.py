"""`python -m search` is the command line."""

import sys

from search.cli.main import main

sys.exit(main())

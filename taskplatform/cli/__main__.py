"""`python -m taskplatform.cli`."""

import sys

from taskplatform.cli import main

sys.exit(main())

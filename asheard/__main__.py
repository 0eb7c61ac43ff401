"""``python -m asheard``: the reading commands."""

import sys

from asheard.main import main

sys.exit(main())

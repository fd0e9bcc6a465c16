"""`python -m seqrl` is the installed command."""

import sys

from seqrl.scripts.command import main

sys.exit(main())

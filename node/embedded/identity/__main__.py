"""python -P -m node.embedded.identity"""

import sys

from node.embedded.identity.command import main

sys.exit(main())

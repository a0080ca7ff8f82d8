"""What the operator wants: the files, their meaning and their differences. A leaf: imports nothing but node.errors."""
